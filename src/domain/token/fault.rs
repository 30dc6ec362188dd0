//! Why a user token was refused: a closed list with a code each for log and metric, and three words for the peer.
//!
//! Holds no part of any token. `token.rs` and `token/claims.rs` say when each of them applies.

/// Why a token was refused. Holds no part of the token; the text is for the log, [`TokenFault::public`] for the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// No token was presented where one is needed.
    #[error("no token was presented")]
    Missing,
    /// Opaque: a personal access token or a token of another issuer.
    #[error(
        "the token is not a JWT; tokens of other kinds, such as personal access tokens, are not supported yet: use an OAuth access token of the workspace"
    )]
    NotJwt,
    /// Longer than [`TOKEN_BYTES_MAX`](super::TOKEN_BYTES_MAX).
    #[error("the token is longer than 24 KiB")]
    TooLarge,
    /// Not three parts of canonical base64url around strict JSON objects.
    #[error("the token is malformed: {0}")]
    Malformed(&'static str),
    /// A header member that is missing, of the wrong type, or asks for processing that is not done here.
    #[error("the token's header member `{0}` is missing or not acceptable")]
    BadHeader(&'static str),
    /// The algorithm is not configured, or is not the key's own.
    #[error("the token's algorithm is not on the list (users.algorithms) or is not its key's own")]
    BadAlgorithm,
    /// The issuer publishes no usable key of this id.
    #[error("the issuer publishes no usable key with the token's key id")]
    UnknownKey,
    /// The signature does not fit.
    #[error("the token's signature is wrong")]
    BadSignature,
    /// A signed token of another kind, such as an ID token.
    #[error("the token is of another type than an access token")]
    WrongType,
    /// Signed by the expected key for another issuer name.
    #[error("the token's issuer is not the workspace's")]
    WrongIssuer,
    /// Meant for somebody else.
    #[error("the token's audience is not this workspace (users.audience)")]
    WrongAudience,
    /// Past its end.
    #[error("the token has expired")]
    Expired,
    /// Before its start, or issued in the future.
    #[error("the token is not valid yet; if this lasts, check the clock of this machine")]
    NotYetValid,
    /// A claim that is missing, of the wrong type, or that could deceive a reader.
    #[error("the token's claim `{0}` is missing or not acceptable")]
    BadClaim(&'static str),
}

impl TokenFault {
    /// Every code, for documentation and metrics.
    pub const CODES: [&'static str; 14] = [
        "missing",
        "not_jwt",
        "too_large",
        "malformed",
        "bad_header",
        "bad_algorithm",
        "unknown_key",
        "bad_signature",
        "wrong_type",
        "wrong_issuer",
        "wrong_audience",
        "expired",
        "not_yet_valid",
        "bad_claim",
    ];

    /// The stable code for log and metric, one of [`TokenFault::CODES`].
    pub fn code(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::NotJwt => "not_jwt",
            Self::TooLarge => "too_large",
            Self::Malformed(_) => "malformed",
            Self::BadHeader(_) => "bad_header",
            Self::BadAlgorithm => "bad_algorithm",
            Self::UnknownKey => "unknown_key",
            Self::BadSignature => "bad_signature",
            Self::WrongType => "wrong_type",
            Self::WrongIssuer => "wrong_issuer",
            Self::WrongAudience => "wrong_audience",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::BadClaim(_) => "bad_claim",
        }
    }

    /// All that the peer is told (PRODUCT 5.5): `missing`, `invalid` or `expired`.
    pub fn public(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Expired => "expired",
            Self::NotJwt
            | Self::TooLarge
            | Self::Malformed(_)
            | Self::BadHeader(_)
            | Self::BadAlgorithm
            | Self::UnknownKey
            | Self::BadSignature
            | Self::WrongType
            | Self::WrongIssuer
            | Self::WrongAudience
            | Self::NotYetValid
            | Self::BadClaim(_) => "invalid",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_a_closed_list_and_the_public_words_are_three() {
        let all = [
            TokenFault::Missing,
            TokenFault::NotJwt,
            TokenFault::TooLarge,
            TokenFault::Malformed(""),
            TokenFault::BadHeader(""),
            TokenFault::BadAlgorithm,
            TokenFault::UnknownKey,
            TokenFault::BadSignature,
            TokenFault::WrongType,
            TokenFault::WrongIssuer,
            TokenFault::WrongAudience,
            TokenFault::Expired,
            TokenFault::NotYetValid,
            TokenFault::BadClaim(""),
        ];
        assert_eq!(all.map(TokenFault::code), TokenFault::CODES);
        let public = all.map(TokenFault::public);
        assert!(
            public
                .iter()
                .all(|word| ["missing", "invalid", "expired"].contains(word))
        );
        assert_eq!(public.iter().filter(|word| **word == "invalid").count(), 12);
    }
}
