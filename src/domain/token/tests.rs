//! Hostile and good tokens against [`verify`]. Every hostile token but the forged ones carries a right signature, so that
//! it is the named check that refuses it.

use serde_json::{Value, json};

use super::fixtures::{
    AUDIENCE, ISSUER, NOW, Signer, b64, claims, document, ec, expect, keys, now, rsa, verified,
};
use super::*;

fn judge(raw: &str, expect: &Expect) -> Result<VerifiedToken, TokenFault> {
    verify(&UnverifiedToken::parse(raw)?, &keys(), expect, now())
}

fn refused(what: &str, raw: &str, expected: TokenFault) {
    let verdict = judge(raw, &expect());
    assert_eq!(verdict.err(), Some(expected), "{what}");
}

fn with_header(member: &str, value: Value) -> String {
    let mut header = ec().header();
    header[member] = value;
    ec().seal(&header.to_string(), &claims().to_string())
}

fn with_claim(claim: &str, value: Value) -> String {
    let mut all = claims();
    all[claim] = value;
    ec().token(&all)
}

fn without(claim: &str) -> String {
    let mut all = claims();
    all.as_object_mut().unwrap().remove(claim);
    ec().token(&all)
}

/// A header and claims under a signature of the caller's making.
fn forged(header: &Value, signature: &[u8]) -> String {
    let header = b64(header.to_string().as_bytes());
    let claims = b64(claims().to_string().as_bytes());
    format!("{header}.{claims}.{}", b64(signature))
}

fn accepted(what: &str, raw: &str, expect: &Expect) -> VerifiedToken {
    judge(raw, expect).unwrap_or_else(|fault| panic!("{what}: {fault}"))
}

#[test]
fn a_genuine_token_gives_its_claims() {
    for signer in [rsa(), ec()] {
        let raw = signer.token(&claims());
        let token = accepted(signer.algorithm, &raw, &expect());
        assert_eq!(token.subject().as_str(), "alice@example.com");
        assert_eq!(token.email().unwrap().as_str(), "alice@example.com");
        assert_eq!(token.client_id().unwrap().as_str(), "databricks-app");
        assert_eq!(token.name(), None);
        assert_eq!(
            token.scopes(),
            &ScopeSet::parse(["genie", "iam.access-control:read", "iam.current-user:read"])
        );
        assert_eq!(token.expires().as_second(), NOW + 3540);
        assert_eq!(token.issued_at().unwrap().as_second(), NOW - 60);
        assert_eq!(token.token_id(), "3f2c1b9e-0000-4000-8000-000000000001");
        assert_eq!(token.kid(), signer.kid);
        assert_eq!(token.secret().expose(), raw);
        assert_eq!(token.digest(), Secret::new(raw).digest());
    }
}

#[test]
fn strings_that_are_no_tokens_are_refused_before_any_key_is_asked_for() {
    let good = ec().token(&claims());
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = message.split_once('.').unwrap();
    let padded = b64(b"{\"a\":1}") + "=";
    let malformed = [
        ("two parts", message.to_owned()),
        ("four parts", format!("{good}.{signature}")),
        ("five parts, as a JWE has", format!("{good}.a.b")),
        ("leading dot", format!(".{good}")),
        ("trailing dot", format!("{good}.")),
        ("only dots", "..".to_owned()),
        ("no signature", format!("{message}.")),
        ("detached payload", format!("{header}..{signature}")),
        ("no header", format!(".{payload}.{signature}")),
        ("Bearer before it", format!("Bearer {good}")),
        ("blank before it", format!(" {good}")),
        ("line end behind it", format!("{good}\n")),
        ("two tokens", format!("{good},{good}")),
        ("two tokens and a blank", format!("{good}, {good}")),
        ("padding on the signature", format!("{good}==")),
        (
            "padding on the header",
            format!("{header}=.{payload}.{signature}"),
        ),
        ("padded claims", format!("{header}.{padded}.{signature}")),
        ("standard alphabet", format!("{header}.{payload}.+/+/")),
        ("blank in the signature", format!("{message}. {signature}")),
        (
            "line end in the claims",
            format!("{header}.{payload}\n.{signature}"),
        ),
        ("NUL", format!("{header}.{payload}\0.{signature}")),
        ("non-ASCII", format!("{header}.{payload}é.{signature}")),
        ("one letter too few", format!("{header}.{payload}.A")),
    ];
    for (what, raw) in &malformed {
        let verdict = judge(raw, &expect()).map(|_| ());
        assert!(
            matches!(verdict, Err(TokenFault::Malformed(_))),
            "{what}: {verdict:?}"
        );
    }
    for opaque in [
        "",
        "dapi0123456789abcdef",
        "null",
        "Bearer",
        "vks_abc",
        "{}",
    ] {
        refused(opaque, opaque, TokenFault::NotJwt);
    }
    for length in [TOKEN_BYTES_MAX + 1, 64 * 1024, 256 * 1024] {
        let long = "A".repeat(length - good.len() - 1) + "." + &good;
        refused("too long", &long, TokenFault::TooLarge);
        refused("too long", &"A".repeat(length), TokenFault::TooLarge);
    }
    refused(
        "a long genuine one",
        &with_claim("x", "y".repeat(24 * 1024).into()),
        TokenFault::TooLarge,
    );
}

#[test]
fn a_second_spelling_of_the_same_bytes_is_refused() {
    let good = ec().token(&claims());
    // 64 bytes are 86 letters, of which the last carries four unused bits.
    let (rest, last) = good.split_at(good.len() - 1);
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let index = alphabet.find(last).unwrap();
    for spare in 1..16 {
        let other = alphabet
            .chars()
            .nth((index & !15) | (index + spare) & 15)
            .unwrap();
        let fault = judge(&format!("{rest}{other}"), &expect()).err();
        assert!(matches!(fault, Some(TokenFault::Malformed(_))), "{other}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table of cases")]
fn only_strict_json_objects_are_read() {
    let (header, body) = (ec().header().to_string(), claims().to_string());
    let twice = |json: &str, member: &str| json.replacen('{', &format!("{{{member},"), 1);
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let cases = [
        ("claims are an array", header.clone(), format!("[{body}]")),
        ("claims are a string", header.clone(), "\"x\"".into()),
        ("claims are null", header.clone(), "null".into()),
        ("claims are empty", header.clone(), String::new()),
        ("claims are no JSON", header.clone(), "a=b".into()),
        ("header is an array", format!("[{header}]"), body.clone()),
        (
            "scope twice",
            header.clone(),
            twice(&body, r#""scope":"all-apis""#),
        ),
        (
            "sub twice",
            header.clone(),
            twice(&body, r#""sub":"root@example.com""#),
        ),
        (
            "exp twice",
            header.clone(),
            twice(&body, r#""exp":9999999999"#),
        ),
        (
            "sub twice, once escaped",
            header.clone(),
            twice(&body, r#""s\u0075b":"root""#),
        ),
        ("alg twice", twice(&header, r#""alg":"none""#), body.clone()),
        ("kid twice", twice(&header, r#""kid":"x""#), body.clone()),
        (
            "a duplicate deep inside",
            header.clone(),
            twice(&body, r#""x":[{"a":1,"a":2}]"#),
        ),
        (
            "data behind the claims",
            header.clone(),
            format!("{body}{{}}"),
        ),
        ("data behind the header", format!("{header}x"), body.clone()),
        ("NUL behind the claims", header.clone(), format!("{body}\0")),
        (
            "mark before the claims",
            header.clone(),
            format!("\u{feff}{body}"),
        ),
        (
            "mark before the header",
            format!("\u{feff}{header}"),
            body.clone(),
        ),
        (
            "too deep",
            header.clone(),
            twice(&body, &format!(r#""x":{}"#, nested(32))),
        ),
        (
            "far too deep",
            header.clone(),
            twice(&body, &format!(r#""x":{}"#, nested(5000))),
        ),
        (
            "exp too large for a float",
            header.clone(),
            twice(&body, r#""x":1e400"#),
        ),
        ("comment", header.clone(), format!("/* */{body}")),
        ("trailing comma", header.clone(), body.replace('}', ",}")),
    ];
    for (what, header, body) in &cases {
        let verdict = judge(&ec().seal(header, body), &expect()).map(|_| ());
        assert!(
            matches!(verdict, Err(TokenFault::Malformed(_))),
            "{what}: {verdict:?}"
        );
    }
    let mut utf16 = vec![0xff, 0xfe];
    utf16.extend(body.encode_utf16().flat_map(u16::to_le_bytes));
    for bytes in [utf16, [body.as_bytes(), b"\xff"].concat()] {
        let message = format!("{}.{}", b64(header.as_bytes()), b64(&bytes));
        let raw = format!("{message}.{}", b64(&ec().sign("ES256", message.as_bytes())));
        let verdict = judge(&raw, &expect()).map(|_| ());
        assert!(
            matches!(verdict, Err(TokenFault::Malformed(_))),
            "{verdict:?}"
        );
    }
    accepted(
        "deep enough",
        &ec().seal(&header, &twice(&body, &format!(r#""x":{}"#, nested(31)))),
        &expect(),
    );
}

#[test]
fn header_members_that_ask_for_other_processing_are_refused() {
    let cases = [
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("crit", json!(["b64"])),
        ("crit", json!("b64")),
        ("crit", Value::Null),
        ("b64", json!(false)),
        ("b64", json!(true)),
        ("zip", json!("DEF")),
        ("zip", Value::Null),
        ("cty", json!("JWT")),
        ("enc", json!("A256GCM")),
        ("kid", Value::Null),
        ("kid", json!(1)),
        ("kid", json!(["ec-1"])),
        ("kid", json!({"kid": "ec-1"})),
        ("kid", json!("")),
        ("kid", json!("k".repeat(KID_BYTES_MAX + 1))),
        ("alg", Value::Null),
        ("alg", json!(["ES256"])),
        ("alg", json!(256)),
        ("alg", json!({})),
        ("typ", Value::Null),
        ("typ", json!(["at+jwt"])),
        ("typ", json!(1)),
    ];
    for (member, value) in cases {
        let what = format!("{member}: {value}");
        refused(
            &what,
            &with_header(member, value),
            TokenFault::BadHeader(member),
        );
    }
    for member in ["kid", "alg"] {
        let mut header = ec().header();
        header.as_object_mut().unwrap().remove(member);
        let raw = ec().seal(&header.to_string(), &claims().to_string());
        refused(member, &raw, TokenFault::BadHeader(member));
    }
}

#[test]
fn the_algorithm_is_the_keys_own_and_never_the_tokens_choice() {
    for name in [
        "none", "None", "NONE", "nOnE", "", " ES256", "es256", "ES256\0", "HS256", "HS384",
        "HS512", "RS384", "RS512", "PS256", "PS384", "PS512", "ES384", "ES512", "ES256K", "EdDSA",
        "RSA1_5", "RSA-OAEP", "dir", "A256KW", "foo",
    ] {
        refused(
            name,
            &with_header("alg", name.into()),
            TokenFault::BadAlgorithm,
        );
        let header = json!({"alg": name, "kid": "rsa-1", "typ": "at+jwt"});
        refused(name, &forged(&header, &[0; 64]), TokenFault::BadAlgorithm);
    }
    // The other key's kid, under an algorithm that is on the list.
    let crossed = json!({"alg": "RS256", "kid": "ec-1", "typ": "at+jwt"});
    let raw = rsa().seal(&crossed.to_string(), &claims().to_string());
    refused("RS256 under an EC kid", &raw, TokenFault::BadAlgorithm);
    let crossed = json!({"alg": "ES256", "kid": "rsa-1", "typ": "at+jwt"});
    let raw = ec().seal(&crossed.to_string(), &claims().to_string());
    refused("ES256 under an RSA kid", &raw, TokenFault::BadAlgorithm);
    // On the list, right for an RSA key, rightly signed: yet the key says RS256.
    let mut wide = expect();
    wide.algorithms = vec![
        Algorithm::PS256,
        Algorithm::RS512,
        Algorithm::RS256,
        Algorithm::HS256,
        Algorithm::ES256,
    ];
    for name in ["RS512", "PS256"] {
        let header = json!({"alg": name, "kid": "rsa-1", "typ": "at+jwt"});
        let raw = rsa().seal(&header.to_string(), &claims().to_string());
        assert_eq!(
            judge(&raw, &wide).err(),
            Some(TokenFault::BadAlgorithm),
            "{name}"
        );
    }
    accepted("RS256", &rsa().token(&claims()), &wide);
}

#[test]
fn a_public_key_is_no_shared_secret_even_if_the_list_names_one() {
    use aws_lc_rs::hmac;
    let mut careless = expect();
    careless.algorithms = vec![Algorithm::HS256, Algorithm::RS256, Algorithm::ES256];
    let header = json!({"alg": "HS256", "kid": "rsa-1", "typ": "at+jwt"});
    let message = format!(
        "{}.{}",
        b64(header.to_string().as_bytes()),
        b64(claims().to_string().as_bytes())
    );
    let published = rsa().jwk();
    let modulus = URL_SAFE_NO_PAD
        .decode(published["n"].as_str().unwrap())
        .unwrap();
    for secret in [
        modulus.as_slice(),
        published.to_string().as_bytes(),
        published["n"].as_str().unwrap().as_bytes(),
        b"",
    ] {
        let tag = hmac::sign(
            &hmac::Key::new(hmac::HMAC_SHA256, secret),
            message.as_bytes(),
        );
        let raw = format!("{message}.{}", b64(tag.as_ref()));
        assert_eq!(judge(&raw, &careless).err(), Some(TokenFault::BadAlgorithm));
    }
}

#[test]
fn keys_in_the_header_are_neither_used_nor_fetched() {
    let attacker = Signer::p256("ec-1");
    for (member, value) in [
        ("jwk", attacker.jwk()),
        ("jku", json!("https://attacker.example/keys")),
        ("x5u", json!("https://attacker.example/cert")),
        ("x5c", json!(["MIIB"])),
        ("x5t", json!("AAAA")),
    ] {
        let mut header = attacker.header();
        header[member] = value.clone();
        let raw = attacker.seal(&header.to_string(), &claims().to_string());
        refused(member, &raw, TokenFault::BadSignature);
        accepted(
            "ignored beside the right signature",
            &with_header(member, value),
            &expect(),
        );
    }
    refused(
        "unknown kid",
        &with_header("kid", json!("ec-2")),
        TokenFault::UnknownKey,
    );
    refused(
        "kid in other case",
        &with_header("kid", json!("EC-1")),
        TokenFault::UnknownKey,
    );
    refused(
        "kid as a path",
        &with_header("kid", json!("../ec-1")),
        TokenFault::UnknownKey,
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table of cases")]
fn no_signature_but_the_keys_own_is_accepted() {
    /// The order of P-256.
    const N: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc,
        0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let one = {
        let mut one = [0; 32];
        one[31] = 1;
        one
    };
    let header = ec().header();
    let good = ec().token(&claims());
    let right = URL_SAFE_NO_PAD
        .decode(good.rsplit_once('.').unwrap().1)
        .unwrap();
    let (r, s) = right.split_at(32);
    let other = ec().sign("ES256", b"something else");
    let der = {
        let integer = |bytes: &[u8]| [&[0x02, 33, 0][..], bytes].concat();
        [&[0x30, 70][..], &integer(r), &integer(s)].concat()
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("psychic: all zero", vec![0; 64]),
        ("r = n, s = n", [N, N].concat()),
        ("r = 0, s = 1", [[0; 32], one].concat()),
        ("r = 1, s = 0", [one, [0; 32]].concat()),
        ("r = n, s right", [&N[..], s].concat()),
        ("all ones", vec![0xff; 64]),
        ("one byte of zero", vec![0]),
        ("of another message", other),
        ("cut short", right[..63].to_vec()),
        ("half", r.to_vec()),
        ("one byte more", [&right[..], &[0]].concat()),
        ("zero before it", [&[0], &right[..]].concat()),
        ("twice", [&right[..], &right[..]].concat()),
        ("DER", der),
        ("r and s swapped", [s, r].concat()),
        ("an RSA one", rsa().sign("RS256", b"x")),
    ];
    for (what, signature) in &cases {
        refused(what, &forged(&header, signature), TokenFault::BadSignature);
    }
    let rsa_header = rsa().header();
    for signature in [
        vec![0; 256],
        vec![0; 1],
        vec![0xff; 256],
        rsa().sign("RS256", b"x"),
        rsa().sign("RS256", b"x")[..255].to_vec(),
        right.clone(),
    ] {
        refused(
            "RSA",
            &forged(&rsa_header, &signature),
            TokenFault::BadSignature,
        );
    }
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (head, _) = message.split_once('.').unwrap();
    let mut richer = claims();
    richer["scope"] = "all-apis".into();
    let swapped = format!("{head}.{}.{signature}", b64(richer.to_string().as_bytes()));
    refused(
        "other claims under the same signature",
        &swapped,
        TokenFault::BadSignature,
    );
    let stranger = Signer::p256("ec-1");
    refused(
        "a stranger's key under a known kid",
        &stranger.token(&claims()),
        TokenFault::BadSignature,
    );
}

#[test]
fn other_kinds_of_token_are_refused() {
    for kind in [
        "JWT",
        "jwt",
        "id_token+jwt",
        "logout+jwt",
        "dpop+jwt",
        "secevent+jwt",
        "rt+jwt",
        "entity-statement+jwt",
        "",
        "at+jwt ",
        "at jwt",
        "at+jwtx",
        "xat+jwt",
        "application/jwt",
        "application/application/at+jwt",
        "text/at+jwt",
        "application/x/at+jwt",
        "at+jwt;v=1",
        "at%2Bjwt",
    ] {
        refused(
            kind,
            &with_header("typ", kind.into()),
            TokenFault::WrongType,
        );
    }
    let mut header = ec().header();
    header.as_object_mut().unwrap().remove("typ");
    refused(
        "none",
        &ec().seal(&header.to_string(), &claims().to_string()),
        TokenFault::WrongType,
    );
    for kind in [
        "at+jwt",
        "AT+JWT",
        "application/at+jwt",
        "Application/At+Jwt",
    ] {
        accepted(kind, &with_header("typ", kind.into()), &expect());
    }
    let mut configured = expect();
    configured.types = vec!["JWT".into()];
    accepted("configured", &with_header("typ", "jwt".into()), &configured);
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table of cases")]
fn issuer_and_audience_are_compared_as_a_whole() {
    let look_alikes = [
        json!("https://workspace.example.com/oidc/"),
        json!("https://workspace.example.com/OIDC"),
        json!("https://Workspace.example.com/oidc"),
        json!("http://workspace.example.com/oidc"),
        json!("https://workspace.example.com"),
        json!("https://workspace.example.com:443/oidc"),
        json!("https://workspace.example.com/oidc?x"),
        json!("https://workspace.example.com/oidc#x"),
        json!("https://x@workspace.example.com/oidc"),
        json!("https://workspace.example.com.attacker.example/oidc"),
        json!("https://attacker.example/https://workspace.example.com/oidc"),
        json!(" https://workspace.example.com/oidc"),
        json!("https://workspace.example.com/oidc\n"),
        json!("https://workspace.example.com/oidc\0"),
        json!(""),
        json!([ISSUER]),
        json!({"iss": ISSUER}),
        json!(1),
        json!(true),
        Value::Null,
    ];
    for issuer in look_alikes {
        let what = issuer.to_string();
        refused(&what, &with_claim("iss", issuer), TokenFault::WrongIssuer);
    }
    refused("no issuer", &without("iss"), TokenFault::WrongIssuer);
    for audience in [
        json!("123456789012345"),
        json!("12345678901234567"),
        json!(" 1234567890123456"),
        json!("1234567890123456,2"),
        json!("1234567890123456 2"),
        json!("1.234567890123456e15"),
        json!(""),
        json!([]),
        json!([""]),
        json!(["2", "3"]),
    ] {
        let what = audience.to_string();
        refused(
            &what,
            &with_claim("aud", audience),
            TokenFault::WrongAudience,
        );
    }
    for audience in [
        json!(1_234_567_890_123_456_u64),
        json!({"aud": AUDIENCE}),
        json!([1_234_567_890_123_456_u64]),
        json!([AUDIENCE, 1]),
        json!([[AUDIENCE]]),
        json!([AUDIENCE, null]),
        json!(true),
        Value::Null,
    ] {
        let what = audience.to_string();
        refused(
            &what,
            &with_claim("aud", audience),
            TokenFault::BadClaim("aud"),
        );
    }
    refused("no audience", &without("aud"), TokenFault::WrongAudience);
    let mut nobody = expect();
    nobody.audiences.clear();
    assert_eq!(
        judge(&ec().token(&claims()), &nobody).err(),
        Some(TokenFault::WrongAudience)
    );
    let mut elsewhere = expect();
    elsewhere.issuer = "https://other.example.com/oidc".into();
    let raw = with_claim("iss", "https://other.example.com/oidc".into());
    assert_eq!(
        judge(&raw, &elsewhere).err(),
        Some(TokenFault::UnknownKey),
        "keys count for their own issuer only"
    );
}

#[test]
fn times_of_the_wrong_type_or_out_of_range_are_refused() {
    let text = (NOW + 3000).to_string();
    for claim in ["exp", "nbf", "iat"] {
        for value in [
            json!(text),
            json!([NOW + 3000]),
            json!({"value": NOW}),
            json!(true),
            Value::Null,
            json!(-1),
            json!(-1.5),
            json!(i64::MAX),
            json!(i64::MIN),
            json!(u64::MAX),
            json!(1e300),
            json!(-1e300),
            json!(1e18),
            json!((NOW + 3000) * 1000),
        ] {
            let what = format!("{claim}: {value}");
            refused(
                &what,
                &with_claim(claim, value),
                TokenFault::BadClaim(claim),
            );
        }
    }
    refused("no end", &without("exp"), TokenFault::BadClaim("exp"));
}

#[test]
fn a_token_is_in_force_from_its_start_to_the_exact_second_of_its_end() {
    let check = |claim: &str, value: Value, expected: Option<TokenFault>| {
        let what = format!("{claim}: {value}");
        assert_eq!(
            judge(&with_claim(claim, value), &expect()).err(),
            expected,
            "{what}"
        );
    };
    check("exp", json!(NOW - 31), Some(TokenFault::Expired));
    check("exp", json!(NOW - 30), Some(TokenFault::Expired));
    check("exp", json!(NOW - 29), None);
    check("exp", json!(NOW as f64 - 29.5), None);
    check("exp", json!(NOW as f64 - 30.5), Some(TokenFault::Expired));
    check("exp", json!(0), Some(TokenFault::Expired));
    check("nbf", json!(NOW + 30), None);
    check("nbf", json!(NOW + 31), Some(TokenFault::NotYetValid));
    check(
        "nbf",
        json!(NOW as f64 + 30.5),
        Some(TokenFault::NotYetValid),
    );
    check("nbf", json!(NOW + 86_400), Some(TokenFault::NotYetValid));
    check("iat", json!(NOW + 30), None);
    check("iat", json!(NOW + 31), Some(TokenFault::NotYetValid));
    check(
        "iat",
        json!(253_402_207_000_i64),
        Some(TokenFault::NotYetValid),
    );

    let strict = |leeway: i64| Expect {
        leeway: SignedDuration::from_secs(leeway),
        ..expect()
    };
    let at = |end: i64, leeway: i64| judge(&with_claim("exp", end.into()), &strict(leeway)).err();
    assert_eq!(
        at(NOW, 0),
        Some(TokenFault::Expired),
        "the end itself is over"
    );
    assert_eq!(at(NOW + 1, 0), None);
    assert_eq!(at(NOW - 59, 3600), None);
    assert_eq!(
        at(NOW - 60, 3600),
        Some(TokenFault::Expired),
        "no leeway beyond a minute"
    );
    assert_eq!(at(NOW, -100), Some(TokenFault::Expired));
    assert_eq!(at(NOW + 1, -100), None, "nor less than none");
}

#[test]
fn a_verified_token_is_checked_again_against_time_and_keys() {
    let token = verified("alice@example.com", "sql", SignedDuration::from_secs(100));
    let at = |seconds: i64| Timestamp::from_second(NOW + seconds).unwrap();
    assert_eq!(token.recheck(&keys(), at(129)), Ok(()));
    assert_eq!(token.recheck(&keys(), at(130)), Err(TokenFault::Expired));
    assert_eq!(
        token.recheck(&keys(), at(-91)),
        Err(TokenFault::NotYetValid)
    );
    let set = |keys: &[Value]| KeySet::from_jwks(ISSUER, &document(keys)).unwrap();
    assert_eq!(
        token.recheck(&set(&[rsa().jwk()]), at(0)),
        Err(TokenFault::UnknownKey)
    );
    let replaced = set(&[Signer::p256("ec-1").jwk()]);
    assert_eq!(
        token.recheck(&replaced, at(0)),
        Err(TokenFault::UnknownKey),
        "another key under the same kid did not sign it"
    );
    assert_eq!(token.recheck(&set(&[ec().jwk()]), at(0)), Ok(()));
}

#[test]
fn subjects_and_names_that_could_deceive_a_reader_are_refused() {
    let deceiving = [
        json!(" "),
        json!("\t"),
        json!("a\r\nX-Forwarded-User: root"),
        json!("a\nb"),
        json!("a\0b"),
        json!("\u{1b}[31mroot"),
        json!("a\u{202e}b"),
        json!("a\u{2028}b"),
        json!("a\u{200b}b"),
        json!("\u{feff}alice@example.com"),
        json!("alice@example.com "),
        json!(" alice@example.com"),
        json!("a".repeat(513)),
        json!("a".repeat(15_000)),
        json!(5),
        json!(["alice@example.com"]),
        json!({"sub": "alice@example.com"}),
        json!(true),
        Value::Null,
    ];
    for claim in [
        "sub",
        "email",
        "name",
        "preferred_username",
        "client_id",
        "azp",
        "jti",
    ] {
        for value in &deceiving {
            let what = format!("{claim}: {:.80}", value.to_string());
            refused(
                &what,
                &with_claim(claim, value.clone()),
                TokenFault::BadClaim(claim),
            );
        }
    }
    refused(
        "empty",
        &with_claim("sub", json!("")),
        TokenFault::BadClaim("sub"),
    );
    refused(
        "40 KB",
        &with_claim("sub", json!("a".repeat(40_000))),
        TokenFault::TooLarge,
    );
    refused("none", &without("sub"), TokenFault::BadClaim("sub"));
    for name in [
        "alice@example.com",
        "Ålice Müller",
        &"a".repeat(512),
        "0f2c-app-id",
        "\"},{",
        "a b",
    ] {
        let raw = with_claim("sub", name.into());
        assert_eq!(accepted(name, &raw, &expect()).subject().as_str(), name);
    }
}

#[test]
fn scopes_are_read_in_every_documented_form_and_in_no_other() {
    let read = |members: Value| {
        let mut all = claims();
        all.as_object_mut().unwrap().remove("scope");
        for (name, value) in members.as_object().unwrap() {
            all[name] = value.clone();
        }
        judge(&ec().token(&all), &expect()).map(|token| token.scopes().to_string())
    };
    for good in [
        json!({"scope": "sql genie"}),
        json!({"scope": "  genie   sql "}),
        json!({"scope": ["sql", "genie"]}),
        json!({"scp": "sql genie"}),
        json!({"scp": ["genie", "sql"]}),
        json!({"scopes": ["sql", "genie"]}),
        json!({"scope": "sql genie", "scp": ["genie", "sql"]}),
        json!({"scope": "sql dashboards.genie"}),
        json!({"scope": "sql genie a\tb"}),
        json!({"scp": ["sql", "genie", "all-apis x"]}),
    ] {
        assert_eq!(read(good.clone()).as_deref(), Ok("genie sql"), "{good}");
    }
    for none in [json!({}), json!({"scope": ""}), json!({"scp": []})] {
        assert_eq!(read(none.clone()).as_deref(), Ok(""), "{none}");
    }
    for (bad, claim) in [
        (json!({"scope": 1}), "scope"),
        (json!({"scope": {"sql": true}}), "scope"),
        (json!({"scope": null}), "scope"),
        (json!({"scope": true}), "scope"),
        (json!({"scp": ["sql", 1]}), "scp"),
        (json!({"scp": [["sql"]]}), "scp"),
        (json!({"scopes": null}), "scopes"),
        (json!({"scope": "sql", "scp": "sql genie"}), "scp"),
        (json!({"scope": "sql", "scopes": ["all-apis"]}), "scopes"),
        (json!({"scope": "", "scp": ["sql"]}), "scp"),
    ] {
        assert_eq!(read(bad.clone()), Err(TokenFault::BadClaim(claim)), "{bad}");
    }
}

#[test]
fn identity_comes_from_the_best_claim_that_is_there() {
    let read = |members: Value| {
        let mut all = claims();
        for (name, value) in members.as_object().unwrap() {
            all[name] = value.clone();
        }
        accepted("identity", &ec().token(&all), &expect())
    };
    let token = read(
        json!({"sub": "0f2c", "email": "bob@example.com", "name": "Bob", "preferred_username": "b"}),
    );
    assert_eq!(token.email().unwrap().as_str(), "bob@example.com");
    assert_eq!(token.name(), Some("Bob"));
    let token = read(json!({"sub": "0f2c", "preferred_username": "b", "name": "", "email": ""}));
    assert_eq!((token.email(), token.name()), (None, Some("b")));
    for unverified in [json!(false), json!("true"), json!(1), Value::Null] {
        let token =
            read(json!({"sub": "0f2c", "email": "bob@example.com", "email_verified": unverified}));
        assert_eq!(token.email(), None);
    }
    for subject in ["a@", "@b", "a@b@c", "a b@c", "app"] {
        assert_eq!(read(json!({"sub": subject})).email(), None, "{subject}");
    }
    assert_eq!(
        read(json!({"client_id": "", "azp": "party"}))
            .client_id()
            .unwrap()
            .as_str(),
        "party"
    );
    let nameless = accepted("no id", &without("jti"), &expect());
    assert_eq!(nameless.token_id(), nameless.digest().short());
    assert_eq!(
        accepted("no iat", &without("iat"), &expect()).issued_at(),
        None
    );
}

#[test]
fn good_tokens_of_every_documented_form_are_accepted() {
    let mut audiences = expect();
    audiences.audiences = vec!["0".into(), AUDIENCE.into()];
    for (what, raw) in [
        ("audience array", with_claim("aud", json!([AUDIENCE]))),
        (
            "audience among others",
            with_claim("aud", json!(["x", AUDIENCE])),
        ),
        (
            "fractional end",
            with_claim("exp", json!(NOW as f64 + 10.25)),
        ),
        ("nbf now", with_claim("nbf", json!(NOW))),
        (
            "unknown claims",
            with_claim("org", json!({"id": [1, 2, {"a": null}]})),
        ),
        (
            "service principal",
            with_claim("sub", json!("8a3f0b52-90a1-4f6e-9d57-0c1f6c2c1111")),
        ),
        ("unknown header member", with_header("pi.atm", json!("x"))),
        (
            "blanks in the JSON",
            ec().seal(
                &format!(" {:#}\n", ec().header()),
                &format!("{:#}", claims()),
            ),
        ),
    ] {
        accepted(what, &raw, &audiences);
    }
    let fill = TOKEN_BYTES_MAX * 3 / 4 - 700;
    accepted(
        "nearly 24 KiB",
        &with_claim("x", "y".repeat(fill).into()),
        &audiences,
    );
}

#[test]
fn every_configured_family_of_keys_works() {
    let (wide, edwards) = (Signer::p384("p384"), Signer::ed25519("ed"));
    let mut bare = rsa().jwk();
    bare.as_object_mut().unwrap().remove("alg");
    let keys = KeySet::from_jwks(ISSUER, &document(&[wide.jwk(), edwards.jwk(), bare])).unwrap();
    let with = |algorithms: &[Algorithm]| Expect {
        algorithms: algorithms.to_vec(),
        ..expect()
    };
    let check = |raw: &str, expect: &Expect| {
        verify(&UnverifiedToken::parse(raw).unwrap(), &keys, expect, now()).map(|_| ())
    };
    let all = with(&[
        Algorithm::RS512,
        Algorithm::RS256,
        Algorithm::ES384,
        Algorithm::EdDSA,
    ]);
    assert_eq!(check(&wide.token(&claims()), &all), Ok(()));
    assert_eq!(check(&edwards.token(&claims()), &all), Ok(()));
    assert_eq!(
        check(&wide.token(&claims()), &expect()),
        Err(TokenFault::BadAlgorithm)
    );
    // An RSA key that names no algorithm has the first one on the list, and that one alone.
    let under = |name: &str| {
        let header = json!({"alg": name, "kid": "rsa-1", "typ": "at+jwt"});
        rsa().seal(&header.to_string(), &claims().to_string())
    };
    assert_eq!(check(&under("RS512"), &all), Ok(()));
    assert_eq!(check(&under("RS256"), &all), Err(TokenFault::BadAlgorithm));
    assert_eq!(check(&under("RS256"), &expect()), Ok(()));
    assert_eq!(
        check(&under("RS256"), &with(&[Algorithm::ES384])),
        Err(TokenFault::BadAlgorithm)
    );
}

#[test]
fn nothing_that_is_printed_holds_the_token_or_its_claims() {
    let raw = ec().token(&claims());
    let parsed = UnverifiedToken::parse(&raw).unwrap();
    let token = accepted("good", &raw, &expect());
    let printed = format!("{parsed:?} {parsed:#?} {token:?} {token:#?}");
    for part in raw.split('.') {
        assert!(!printed.contains(part), "{printed}");
    }
    assert!(!printed.contains("genie"), "{printed}");
}

proptest::proptest! {
    #[test]
    fn no_change_of_one_byte_is_accepted(at in 0usize..4096, byte in 0x20u8..0x7f) {
        let good = ec().token(&claims());
        let mut bytes = good.into_bytes();
        let at = at % bytes.len();
        proptest::prop_assume!(bytes[at] != byte);
        bytes[at] = byte;
        let changed = String::from_utf8(bytes).unwrap();
        proptest::prop_assert!(judge(&changed, &expect()).is_err());
    }

    #[test]
    fn no_string_makes_it_panic(raw in "[A-Za-z0-9_.=-]{0,80}|\\PC{0,40}") {
        proptest::prop_assert!(judge(&raw, &expect()).is_err());
    }
}
