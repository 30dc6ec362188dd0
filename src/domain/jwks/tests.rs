//! Key sets with entries that must not verify anything, and the life of withdrawn keys.

use serde_json::{Value, json};

use super::*;
use crate::domain::token::fault::TokenFault;
use crate::domain::token::fixtures::{ISSUER, Signer, b64, claims, document, ec, expect, now, rsa};
use crate::domain::token::{UnverifiedToken, verify};

/// Published by nobody: a real 1024-bit key made elsewhere, and a genuine token of it that ends after the fixtures' present.
const WEAK_MODULUS: &str = "2OFCY8veBU_2i2fFXpZuiosYAlxQmpu1WCLG5sUZqufNB2eVaCleldlTXHN8prZZNDDuM7i2YNNiyWGvEkzDvSm3uSncOxluUZXV0Kwm3oHT5rcsNRGb7ps8MfHSjlYY3JXmEZ8Sgxki1f7jpIPnZDDEnow7lSqKup0_yDcZAIk";
const WEAK_TOKEN: &str = "eyJhbGciOiAiUlMyNTYiLCAia2lkIjogIndlYWsiLCAidHlwIjogImF0K2p3dCJ9.eyJpc3MiOiAiaHR0cHM6Ly93b3Jrc3BhY2UuZXhhbXBsZS5jb20vb2lkYyIsICJhdWQiOiAiMTIzNDU2Nzg5MDEyMzQ1NiIsICJzdWIiOiAiYWxpY2VAZXhhbXBsZS5jb20iLCAiZXhwIjogMTgwMDAwMzU0MH0.aHDOLRnoNTE_5xMcLhWP98HfeTWqQfJFN-b69V8BJmdOhKYR8Y2bXZwhbWy5Snah2gusQUyluUlXsYi6kKyXr0aQD9GxmVWdWMSLwC2w1MzLyJE-AbxPtosTI5iqGVlmnYd7LtN3H9J3nnkBNE52wSIwlYs-P9aIibBYTATglUk";

fn set(keys: &[Value]) -> Result<KeySet, JwksFault> {
    KeySet::from_jwks(ISSUER, &document(keys))
}

fn changed(jwk: Value, member: &str, value: Value) -> Value {
    let mut jwk = jwk;
    jwk[member] = value;
    jwk
}

fn removed(jwk: Value, member: &str) -> Value {
    let mut jwk = jwk;
    jwk.as_object_mut().unwrap().remove(member);
    jwk
}

fn check(raw: &str, keys: &KeySet) -> Result<(), TokenFault> {
    verify(&UnverifiedToken::parse(raw)?, keys, &expect(), now()).map(|_| ())
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table of cases")]
fn entries_that_may_not_verify_a_token_are_left_out_and_harm_no_other() {
    let modulus = |bits: usize| {
        let mut bytes = vec![0xff; bits.div_ceil(8)];
        bytes[0] >>= bytes.len() * 8 - bits;
        json!(b64(&bytes))
    };
    let edwards = Signer::ed25519("x");
    let bad = [
        (
            "shared secret",
            json!({"kty": "oct", "kid": "x", "k": b64(&[7; 32]), "alg": "HS256"}),
        ),
        (
            "shared secret without alg",
            json!({"kty": "oct", "kid": "x", "k": b64(&[7; 32])}),
        ),
        (
            "RSA of 1024 bits",
            json!({"kty": "RSA", "kid": "x", "n": WEAK_MODULUS, "e": "AQAB"}),
        ),
        ("RSA of 2047 bits", changed(rsa().jwk(), "n", modulus(2047))),
        ("RSA of 8193 bits", changed(rsa().jwk(), "n", modulus(8193))),
        (
            "1024 bits behind zeros",
            changed(
                rsa().jwk(),
                "n",
                json!(b64(&[vec![0; 128], vec![0xff; 128]].concat())),
            ),
        ),
        ("exponent one", changed(rsa().jwk(), "e", json!("AQ"))),
        ("exponent zero", changed(rsa().jwk(), "e", json!("AA"))),
        ("even exponent", changed(rsa().jwk(), "e", json!("Ag"))),
        (
            "long exponent",
            changed(rsa().jwk(), "e", json!(b64(&[1; 64]))),
        ),
        ("empty modulus", changed(rsa().jwk(), "n", json!(""))),
        (
            "modulus of zeros",
            changed(rsa().jwk(), "n", json!(b64(&[0; 256]))),
        ),
        ("modulus is a number", changed(rsa().jwk(), "n", json!(5))),
        (
            "modulus is no base64url",
            changed(rsa().jwk(), "n", json!("+/=")),
        ),
        ("no modulus", removed(rsa().jwk(), "n")),
        ("for encryption", changed(ec().jwk(), "use", json!("enc"))),
        (
            "use in other case",
            changed(ec().jwk(), "use", json!("SIG")),
        ),
        (
            "use is an array",
            changed(ec().jwk(), "use", json!(["sig"])),
        ),
        ("use is null", changed(ec().jwk(), "use", Value::Null)),
        (
            "operations without verify",
            changed(ec().jwk(), "key_ops", json!(["sign", "encrypt"])),
        ),
        ("no operations", changed(ec().jwk(), "key_ops", json!([]))),
        (
            "operations are a string",
            changed(ec().jwk(), "key_ops", json!("verify")),
        ),
        (
            "EC key for ES384",
            changed(ec().jwk(), "alg", json!("ES384")),
        ),
        (
            "EC key for RS256",
            changed(ec().jwk(), "alg", json!("RS256")),
        ),
        (
            "EC key for HS256",
            changed(ec().jwk(), "alg", json!("HS256")),
        ),
        (
            "EC key for key agreement",
            changed(ec().jwk(), "alg", json!("ECDH-ES")),
        ),
        (
            "RSA key for ES256",
            changed(rsa().jwk(), "alg", json!("ES256")),
        ),
        (
            "RSA key for encryption",
            changed(rsa().jwk(), "alg", json!("RSA-OAEP-256")),
        ),
        (
            "RSA key for HS256",
            changed(rsa().jwk(), "alg", json!("HS256")),
        ),
        ("alg none", changed(rsa().jwk(), "alg", json!("none"))),
        ("alg is a number", changed(rsa().jwk(), "alg", json!(1))),
        (
            "unknown curve",
            changed(ec().jwk(), "crv", json!("secp256k1")),
        ),
        ("P-521", changed(ec().jwk(), "crv", json!("P-521"))),
        (
            "P-256 key called P-384",
            changed(removed(ec().jwk(), "alg"), "crv", json!("P-384")),
        ),
        (
            "point off the curve",
            changed(ec().jwk(), "y", json!(b64(&[1; 32]))),
        ),
        (
            "point at infinity",
            changed(
                changed(ec().jwk(), "x", json!(b64(&[0; 32]))),
                "y",
                json!(b64(&[0; 32])),
            ),
        ),
        (
            "short coordinate",
            changed(ec().jwk(), "x", json!(b64(&[1; 31]))),
        ),
        ("no coordinate", removed(ec().jwk(), "y")),
        ("Ed448", changed(edwards.jwk(), "crv", json!("Ed448"))),
        ("X25519", changed(edwards.jwk(), "crv", json!("X25519"))),
        (
            "short Edwards key",
            changed(edwards.jwk(), "x", json!(b64(&[1; 31]))),
        ),
        (
            "unknown kind",
            json!({"kty": "AKP", "kid": "x", "pub": "AA"}),
        ),
        ("kind is a number", changed(ec().jwk(), "kty", json!(1))),
        ("no kind", removed(ec().jwk(), "kty")),
        ("no kid", removed(ec().jwk(), "kid")),
        ("empty kid", changed(ec().jwk(), "kid", json!(""))),
        ("kid is a number", changed(ec().jwk(), "kid", json!(1))),
        ("kid is null", changed(ec().jwk(), "kid", Value::Null)),
        (
            "long kid",
            changed(ec().jwk(), "kid", json!("k".repeat(KID_BYTES_MAX + 1))),
        ),
        ("a string", json!("key")),
        ("null", Value::Null),
        ("an array", json!([ec().jwk()])),
        ("empty", json!({})),
    ];
    let good = Signer::p256("good");
    for (what, entry) in &bad {
        assert_eq!(
            set(std::slice::from_ref(entry)).err(),
            Some(JwksFault::NoUsableKey { offered: 1 }),
            "{what}"
        );
        let with_good = set(&[entry.clone(), good.jwk(), entry.clone()]).unwrap();
        assert_eq!(with_good.live(now()), 1, "{what}");
        assert_eq!(check(&good.token(&claims()), &with_good), Ok(()), "{what}");
    }
}

#[test]
fn a_genuine_signature_of_a_weak_key_is_refused() {
    let weak = json!({"kty": "RSA", "kid": "weak", "n": WEAK_MODULUS, "e": "AQAB", "use": "sig", "alg": "RS256"});
    let keys = set(&[weak, ec().jwk()]).unwrap();
    assert_eq!(check(WEAK_TOKEN, &keys), Err(TokenFault::UnknownKey));
}

#[test]
fn usable_keys_in_every_documented_form_are_taken() {
    let zero_led = {
        let n = URL_SAFE_NO_PAD
            .decode(rsa().jwk()["n"].as_str().unwrap())
            .unwrap();
        changed(rsa().jwk(), "n", json!(b64(&[vec![0], n].concat())))
    };
    for (what, jwk, raw) in [
        ("RSA", rsa().jwk(), rsa().token(&claims())),
        ("RSA with a sign byte", zero_led, rsa().token(&claims())),
        ("EC", ec().jwk(), ec().token(&claims())),
        ("no use", removed(ec().jwk(), "use"), ec().token(&claims())),
        ("no alg", removed(ec().jwk(), "alg"), ec().token(&claims())),
        (
            "operations",
            changed(removed(ec().jwk(), "use"), "key_ops", json!(["verify"])),
            ec().token(&claims()),
        ),
        (
            "certificate",
            changed(ec().jwk(), "x5c", json!(["AAAA"])),
            ec().token(&claims()),
        ),
    ] {
        assert_eq!(check(&raw, &set(&[jwk]).unwrap()), Ok(()), "{what}");
    }
}

#[test]
fn documents_that_are_no_key_sets_are_refused() {
    for body in [
        &b""[..],
        b"null",
        b"5",
        b"\"keys\"",
        b"[]",
        b"{}",
        b"{\"keys\":{}}",
        b"{\"keys\":null}",
        b"{\"keys\":\"x\"}",
        b"<html>",
        b"{\"keys\":[",
        b"{\"keys\":[]}x",
        b"{\"keys\":[],\"keys\":[]}",
        b"\xff\xfe",
        b"\xef\xbb\xbf{\"keys\":[]}",
    ] {
        let fault = KeySet::from_jwks(ISSUER, body).err();
        assert_eq!(
            fault,
            Some(JwksFault::NotAKeySet),
            "{:?}",
            String::from_utf8_lossy(body)
        );
    }
    assert_eq!(set(&[]).err(), Some(JwksFault::NoUsableKey { offered: 0 }));
    let bomb = format!(
        "{{\"keys\":[{}{}]}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    assert!(KeySet::from_jwks(ISSUER, bomb.as_bytes()).is_err());
}

#[test]
fn a_duplicate_member_voids_its_entry_alone() {
    let twice = ec()
        .jwk()
        .to_string()
        .replacen('{', "{\"kid\":\"other\",", 1);
    let body = format!("{{\"keys\":[{twice},{}]}}", rsa().jwk());
    let keys = KeySet::from_jwks(ISSUER, body.as_bytes()).unwrap();
    assert!(
        keys.holds("rsa-1", now()) && !keys.holds("ec-1", now()) && !keys.holds("other", now())
    );
}

#[test]
fn a_kid_that_stands_for_two_keys_stands_for_none() {
    let attacker = Signer::p256("ec-1");
    for order in [
        [ec().jwk(), attacker.jwk(), rsa().jwk()],
        [attacker.jwk(), rsa().jwk(), ec().jwk()],
    ] {
        let keys = set(&order).unwrap();
        for signer in [ec(), &attacker] {
            assert_eq!(
                check(&signer.token(&claims()), &keys),
                Err(TokenFault::UnknownKey)
            );
        }
        assert_eq!(check(&rsa().token(&claims()), &keys), Ok(()));
    }
    let thrice = set(&[ec().jwk(), attacker.jwk(), ec().jwk(), rsa().jwk()]).unwrap();
    assert!(
        !thrice.holds("ec-1", now()),
        "a third entry does not bring it back"
    );
    let same = set(&[ec().jwk(), ec().jwk()]).unwrap();
    assert_eq!(
        check(&ec().token(&claims()), &same),
        Ok(()),
        "the same key twice is one key"
    );
    let unusable = changed(attacker.jwk(), "use", json!("enc"));
    assert!(
        set(&[unusable, ec().jwk()]).unwrap().holds("ec-1", now()),
        "a key for encryption does not compete"
    );
}

#[test]
fn a_withdrawn_key_ends_in_bounded_time_and_a_published_one_does_not() {
    let hour = SignedDuration::from_hours(1);
    let at = |minutes: i64| now() + SignedDuration::from_mins(minutes);
    let (old, new) = (Signer::p256("old"), Signer::p256("new"));
    let first = set(&[old.jwk()]).unwrap();
    let second = set(&[new.jwk()]).unwrap().succeeding(&first, at(0), hour);
    assert!(second.holds("old", at(59)) && second.holds("new", at(59)));
    assert!(!second.holds("old", at(60)));
    assert!(
        second.holds("new", at(100_000)),
        "no age ends a key that is published"
    );
    let third = set(&[new.jwk()]).unwrap().succeeding(&second, at(10), hour);
    assert!(
        third.holds("old", at(59)) && !third.holds("old", at(60)),
        "carrying it on gives it no more time"
    );
    assert_eq!(third.live(at(59)), 2);
    assert_eq!(third.live(at(60)), 1);
    let back = set(&[new.jwk(), old.jwk()])
        .unwrap()
        .succeeding(&third, at(20), hour);
    assert!(back.holds("old", at(100_000)), "published again");
    let replaced = Signer::p256("old");
    let swapped = set(&[replaced.jwk()])
        .unwrap()
        .succeeding(&first, at(0), hour);
    assert_eq!(
        check(&old.token(&claims()), &swapped),
        Err(TokenFault::BadSignature),
        "the newer key has the kid"
    );
    let late = set(&[new.jwk()]).unwrap().succeeding(&second, at(61), hour);
    assert_eq!(late.live(at(0)), 1, "what is over is not carried on");
    let foreign = KeySet::from_jwks("https://other.example.com", &document(&[new.jwk()])).unwrap();
    assert!(
        !foreign.succeeding(&first, at(0), hour).holds("old", at(0)),
        "keys do not change issuer"
    );
}

#[test]
fn a_set_is_bounded_however_often_keys_rotate() {
    let point = ec().jwk();
    let many = (0..3000)
        .map(|n| changed(point.clone(), "kid", json!(format!("k{n}"))))
        .collect::<Vec<_>>();
    let first = set(&many).unwrap();
    assert_eq!(first.live(now()), KEYS_MAX);
    assert!(first.holds("k0", now()));
    let next = set(&[changed(point, "kid", json!("new"))]).unwrap();
    let next = next.succeeding(&first, now(), SignedDuration::from_hours(1));
    assert_eq!(next.live(now()), KEYS_MAX);
    assert!(next.holds("new", now()));
}
