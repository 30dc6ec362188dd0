//! The claims of a user token, read into types: a claim of the wrong type is a refusal, never an absent claim.
//!
//! Knows nothing of signatures or the present time. `token.rs` calls it once the signature is known to be right.

use serde_json::{Map, Value};

use super::Expect;
use super::fault::TokenFault;
use crate::domain::clock::{SignedDuration, Timestamp};
use crate::domain::identity::{ClientId, NameFault, UserEmail, UserId, check_name};
use crate::domain::scope::ScopeSet;

/// What the rest of the program may know of a token.
pub(super) struct Claims {
    pub subject: UserId,
    pub email: Option<UserEmail>,
    pub name: Option<String>,
    pub client_id: Option<ClientId>,
    pub token_id: Option<String>,
    pub scopes: ScopeSet,
    pub expires: Timestamp,
    pub not_before: Option<Timestamp>,
    pub issued_at: Option<Timestamp>,
}

impl Claims {
    /// Reads every claim that is used and compares issuer and audience.
    pub(super) fn read(claims: &Map<String, Value>, expect: &Expect) -> Result<Self, TokenFault> {
        let reader = Reader(claims);
        if claims.get("iss").and_then(Value::as_str) != Some(&*expect.issuer) {
            return Err(TokenFault::WrongIssuer);
        }
        let audiences = reader.texts("aud")?.ok_or(TokenFault::WrongAudience)?;
        if !audiences
            .iter()
            .any(|audience| expect.audiences.iter().any(|ours| ours == audience))
        {
            return Err(TokenFault::WrongAudience);
        }
        let subject = reader.plain("sub")?.ok_or(TokenFault::BadClaim("sub"))?;
        let name = reader.plain("name")?;
        let preferred = reader.plain("preferred_username")?;
        let client = reader.plain("client_id")?;
        let authorized_party = reader.plain("azp")?;
        Ok(Self {
            subject: UserId::parse(subject).map_err(|_| TokenFault::BadClaim("sub"))?,
            email: reader.email(subject)?,
            name: name.or(preferred).map(str::to_owned),
            client_id: client
                .or(authorized_party)
                .map(ClientId::parse)
                .transpose()
                .map_err(|_| TokenFault::BadClaim("client_id"))?,
            token_id: reader.plain("jti")?.map(str::to_owned),
            scopes: reader.scopes()?,
            expires: reader.moment("exp")?.ok_or(TokenFault::BadClaim("exp"))?,
            not_before: reader.moment("nbf")?,
            issued_at: reader.moment("iat")?,
        })
    }
}

struct Reader<'a>(&'a Map<String, Value>);

impl<'a> Reader<'a> {
    /// A string that may be shown, recorded and sent in a header. An empty one says nothing and counts as absent; blanks at
    /// its ends are refused, because a header loses them and would name somebody else.
    fn plain(&self, claim: &'static str) -> Result<Option<&'a str>, TokenFault> {
        let Some(value) = self.0.get(claim) else {
            return Ok(None);
        };
        let text = value.as_str().ok_or(TokenFault::BadClaim(claim))?;
        match check_name(text) {
            Ok(()) if text.trim() == text => Ok(Some(text)),
            Err(NameFault::Empty) if text.is_empty() => Ok(None),
            Ok(()) | Err(NameFault::Empty | NameFault::TooLong | NameFault::Character) => {
                Err(TokenFault::BadClaim(claim))
            }
        }
    }

    /// A string or an array of strings, as a list.
    fn texts(&self, claim: &'static str) -> Result<Option<Vec<&'a str>>, TokenFault> {
        match self.0.get(claim) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(vec![text])),
            Some(Value::Array(items)) => items
                .iter()
                .map(|item| item.as_str().ok_or(TokenFault::BadClaim(claim)))
                .collect::<Result<_, _>>()
                .map(Some),
            Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) => {
                Err(TokenFault::BadClaim(claim))
            }
        }
    }

    /// `scope`, `scp` or `scopes`: a string of names between blanks, or an array of them. Where several are present they
    /// must agree: with two lists there is no telling which one the workspace goes by.
    fn scopes(&self) -> Result<ScopeSet, TokenFault> {
        let mut found: Option<ScopeSet> = None;
        for claim in ["scope", "scp", "scopes"] {
            let Some(texts) = self.texts(claim)? else {
                continue;
            };
            let set = match self.0.get(claim) {
                Some(Value::String(names)) => ScopeSet::parse(names.split(' ')),
                Some(_) | None => ScopeSet::parse(texts),
            };
            match &found {
                Some(other) if *other != set => return Err(TokenFault::BadClaim(claim)),
                Some(_) | None => found = Some(set),
            }
        }
        Ok(found.unwrap_or_default())
    }

    fn email(&self, subject: &str) -> Result<Option<UserEmail>, TokenFault> {
        let claimed = self.plain("email")?;
        let vouched = self
            .0
            .get("email_verified")
            .is_none_or(|said| *said == Value::Bool(true));
        claimed
            .filter(|_| vouched)
            .or_else(|| Some(subject).filter(|subject| is_address(subject)))
            .map(UserEmail::parse)
            .transpose()
            .map_err(|_| TokenFault::BadClaim("email"))
    }

    /// Seconds since the epoch, whole or with a fraction, within what a calendar can hold.
    fn moment(&self, claim: &'static str) -> Result<Option<Timestamp>, TokenFault> {
        let fault = TokenFault::BadClaim(claim);
        let number = match self.0.get(claim) {
            None => return Ok(None),
            Some(Value::Number(number)) => number,
            Some(_) => return Err(fault),
        };
        let at = match number.as_i64() {
            Some(seconds) => Timestamp::from_second(seconds).map_err(|_| fault)?,
            None => number
                .as_f64()
                .and_then(|seconds| SignedDuration::try_from_secs_f64(seconds).ok())
                .and_then(|since| Timestamp::from_duration(since).ok())
                .ok_or(fault)?,
        };
        if at < Timestamp::UNIX_EPOCH {
            return Err(fault);
        }
        Ok(Some(at))
    }
}

/// Whether a subject is an e-mail address, as it is for people and not for service principals (facts 2.1).
fn is_address(subject: &str) -> bool {
    subject.split_once('@').is_some_and(|(local, domain)| {
        !local.is_empty()
            && !domain.is_empty()
            && !domain.contains('@')
            && !subject.contains(char::is_whitespace)
    })
}
