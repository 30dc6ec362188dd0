//! The workspace's own refusals: listens to the beginning of an error answer, hands it on whole, and says what is missing.
//!
//! One reading serves both the retry (the token itself was refused) and the diagnosis (which plane lacks something). Answers
//! that can be no refusal are not touched. Knows no text: that is `domain/platform_refusal.rs`; nor any plane: `domain/missing.rs`.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;

use crate::domain::headers;
use crate::domain::missing::{Missing, Ran};
use crate::domain::platform_refusal::{self, REFUSAL_BYTES_MAX, Said};
use crate::domain::policy::{Grant, Identity};
use crate::domain::scope::ScopeSet;
use crate::runtime::credential::Credential;
use crate::runtime::http_client::{Body, BoxError};
use crate::runtime::session::Caller;
use crate::runtime::verifier::Verifier;

use super::record::RequestRecord;

/// How long an error answer may take from its head to the end of what is read of it; the rest goes on unread.
const REFUSAL_TIME_MAX: Duration = Duration::from_secs(2);

/// Listens to an answer. It comes back as it was: the frames that were read stand before those that were not.
pub async fn hear(response: Response<Body>) -> (Response<Body>, Said) {
    if !platform_refusal::may_refuse(response.status()) {
        return (response, Said::Nothing);
    }
    let (parts, body) = response.into_parts();
    let (start, body) = if is_legible(&parts.headers) && !body.is_end_stream() {
        Box::pin(begin(body)).await
    } else {
        (Vec::new(), body)
    };
    let said = platform_refusal::read(parts.status, &parts.headers, &start);
    (Response::from_parts(parts, body), said)
}

/// Nothing here decompresses, and a stream has no end to wait for.
fn is_legible(headers: &HeaderMap) -> bool {
    let plain = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    let kind = headers.get(CONTENT_TYPE).map(|kind| kind.as_bytes());
    let stream = kind.is_some_and(|kind| {
        kind.get(..17)
            .is_some_and(|start| start.eq_ignore_ascii_case(b"text/event-stream"))
    });
    plain && !stream
}

/// Reads up to the limit, and at most one frame beyond it.
async fn begin(mut body: Body) -> (Vec<u8>, Body) {
    let (mut start, mut frames) = (Vec::new(), VecDeque::new());
    let read = async {
        while start.len() < REFUSAL_BYTES_MAX {
            let frame = body.frame().await;
            if let Some(data) = frame
                .as_ref()
                .and_then(|frame| frame.as_ref().ok()?.data_ref())
            {
                start.extend_from_slice(data);
            }
            let last = !matches!(frame, Some(Ok(_)));
            frames.extend(frame);
            if last {
                return true;
            }
        }
        false
    };
    // Whatever was read until then is enough or is not; the answer does not wait for it.
    let ended = tokio::time::timeout(REFUSAL_TIME_MAX, read).await;
    let rest = (ended != Ok(true)).then_some(body);
    (start, Replayed { frames, rest }.boxed_unsync())
}

/// A body of which the beginning was read.
struct Replayed {
    frames: VecDeque<Result<Frame<Bytes>, BoxError>>,
    /// `None` when all of it was read.
    rest: Option<Body>,
}

impl HttpBody for Replayed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(frame) = self.frames.pop_front() {
            return Poll::Ready(Some(frame));
        }
        match &mut self.rest {
            Some(rest) => Pin::new(rest).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.rest.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let data = self.frames.iter().flatten().filter_map(Frame::data_ref);
        let read: u64 = data.map(|data| data.len() as u64).sum();
        let rest = self
            .rest
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint);
        let mut hint = SizeHint::new();
        // The upper end first: the lower one may not pass it.
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(read));
        }
        hint.set_lower(rest.lower().saturating_add(read));
        hint
    }
}

/// What is known when a granted call comes back refused.
pub struct Asked<'a> {
    /// As whom it ran, and with which scope in mind.
    pub grant: &'a Grant,
    /// Whose token was used where it ran as the user.
    pub caller: &'a Caller,
    /// What it carried.
    pub credential: &'a Credential,
    /// What the app declares for its users, where the configuration says so.
    pub declared: Option<&'a ScopeSet>,
}

impl Asked<'_> {
    /// What the call lacks, as far as is known.
    pub fn missing(&self, said: &Said, verifier: &Verifier) -> Option<Missing> {
        // Nearly every answer: nothing is looked up for it.
        if *said == Said::Nothing {
            return None;
        }
        let (held, scope) = (self.credential.scopes(), self.grant.scope());
        match (self.grant.identity(), self.caller) {
            (Identity::App, Caller::App | Caller::User(_)) => {
                Missing::find(said, Ran::App { held }, scope)
            }
            (Identity::User, Caller::User(session)) => {
                let token = session.token();
                let of_client = verifier.seen_scopes().of(token.client_id());
                let ran = Ran::User {
                    held,
                    token: token.scopes(),
                    declared: self.declared,
                    of_client: &of_client,
                };
                Missing::find(said, ran, scope)
            }
            (Identity::User, Caller::App) => None,
        }
    }
}

/// Says it to the agent and to the record. After the answer was cleaned: a header of that name is only ever ours.
pub fn tell(missing: &Missing, response: &mut Response<Body>, record: &mut RequestRecord) {
    if let Some(value) = missing.header() {
        response.headers_mut().insert(headers::MISSING, value);
    }
    record.lacks(missing);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::http_client::full;
    use futures_util::FutureExt as _;
    use http::{HeaderValue, StatusCode};
    use http_body_util::StreamBody;
    use tokio::sync::mpsc;

    const TEXT: &str = "Invalid scope, required scopes: sql";

    fn answer(status: u16, body: Body) -> Response<Body> {
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response
    }

    type Pieces = mpsc::Sender<Result<Frame<Bytes>, BoxError>>;

    /// A body without a length, and the hand that feeds it.
    fn fed() -> (Pieces, Body) {
        let (sender, receiver) = mpsc::channel(64);
        let pieces = futures_util::stream::unfold(receiver, async |mut receiver| {
            Some((receiver.recv().await?, receiver))
        });
        (sender, StreamBody::new(pieces).boxed_unsync())
    }

    fn data(text: impl Into<Bytes>) -> Result<Frame<Bytes>, BoxError> {
        Ok(Frame::data(text.into()))
    }

    fn is_of_scopes(said: &Said) -> bool {
        matches!(said, Said::Scopes(scopes) if scopes.len() == 1)
    }

    /// What an answer still says after it was listened to.
    async fn whole(response: Response<Body>) -> Bytes {
        response.into_body().collect().await.unwrap().to_bytes()
    }

    #[tokio::test]
    async fn a_refusal_comes_back_whole_and_with_its_length() {
        let (response, said) = hear(answer(403, full(TEXT))).await;
        assert!(is_of_scopes(&said), "{said:?}");
        assert_eq!(response.body().size_hint().exact(), Some(TEXT.len() as u64));
        assert_eq!(whole(response).await, TEXT);
        let (response, said) = hear(answer(403, full(""))).await;
        assert_eq!(
            (said, response.body().is_end_stream()),
            (Said::Nothing, true)
        );
    }

    #[tokio::test]
    async fn what_is_longer_than_the_limit_passes_all_the_same() {
        let long = format!("{TEXT}\n{}", "x".repeat(4 * REFUSAL_BYTES_MAX));
        let (sender, body) = fed();
        let sending = tokio::spawn({
            let long = long.clone();
            async move {
                for piece in long.as_bytes().chunks(1000) {
                    sender
                        .send(data(Bytes::copy_from_slice(piece)))
                        .await
                        .unwrap();
                }
            }
        });
        let (response, said) = hear(answer(403, body)).await;
        assert!(is_of_scopes(&said), "{said:?}");
        assert_eq!(response.body().size_hint().upper(), None);
        assert_eq!(whole(response).await, long);
        sending.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_does_not_end_goes_on_after_a_while() {
        let (sender, body) = fed();
        sender.send(data(TEXT)).await.unwrap();
        let (response, said) = hear(answer(403, body)).await;
        assert!(is_of_scopes(&said), "{said:?}");
        sender.send(data(" more")).await.unwrap();
        drop(sender);
        assert_eq!(whole(response).await, format!("{TEXT} more"));
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_still_breaks_off() {
        let (sender, body) = fed();
        sender.send(data(TEXT)).await.unwrap();
        sender.send(Err("cut".into())).await.unwrap();
        let (response, said) = hear(answer(403, body)).await;
        assert!(is_of_scopes(&said), "{said:?}");
        let mut body = response.into_body();
        let first = body.frame().await.unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), TEXT);
        assert!(body.frame().await.unwrap().is_err());
    }

    #[tokio::test]
    async fn what_can_be_no_refusal_or_cannot_be_read_is_not_waited_for() {
        let encoded = ("content-encoding", "gzip");
        let stream = ("content-type", "text/event-stream; charset=utf-8");
        for (status, header) in [
            (200, None),
            (500, None),
            (403, Some(encoded)),
            (403, Some(stream)),
        ] {
            let (sender, body) = fed();
            let mut response = answer(status, body);
            if let Some((name, value)) = header {
                response
                    .headers_mut()
                    .insert(name, HeaderValue::from_static(value));
            }
            let (mut response, said) = hear(response).now_or_never().expect("at once");
            assert_eq!(said, Said::Nothing);
            // The headers speak even then.
            if header == Some(encoded) {
                let text = HeaderValue::from_static(TEXT);
                response
                    .headers_mut()
                    .insert("x-databricks-reason-phrase", text);
                let (_, said) = hear(response).now_or_never().expect("at once");
                assert!(is_of_scopes(&said), "{said:?}");
            }
            drop(sender);
        }
    }
}
