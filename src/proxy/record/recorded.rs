//! An answer on its way to the peer, with its record on its back.
//!
//! Counts what passes and closes the record at the body's end, whichever it is. `record.rs` writes what it says.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::runtime::http_client::{Body, BoxError};

use super::RequestRecord;

/// An answer on its way to the peer, with the record on its back. Drops trailers of nobody: answers keep theirs.
pub(super) struct Recorded {
    body: Body,
    record: Option<RequestRecord>,
}

impl HttpBody for Recorded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                if let (Some(record), Some(data)) = (&mut this.record, frame.data_ref()) {
                    record.received += data.len() as u64;
                }
                // hyper does not poll a body of known length past its last byte.
                if this.body.is_end_stream() {
                    this.finish(None);
                }
            }
            Some(Err(_)) => this.finish(Some("truncated")),
            None => this.finish(None),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Recorded {
    pub(super) fn new(body: Body, record: RequestRecord) -> Self {
        Self {
            body,
            record: Some(record),
        }
    }

    fn finish(&mut self, ending: Option<&'static str>) {
        if let Some(mut record) = self.record.take() {
            record.close(ending);
        }
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        // A body that had no bytes to begin with is never polled.
        if self.body.is_end_stream() {
            self.finish(None);
        }
        // Otherwise the record says by itself that it was dropped.
    }
}
