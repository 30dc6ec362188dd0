//! The Thrift path of a warehouse, as far as a sidecar sees it: path, scope, grant. Thrift itself is not spoken here.
//!
//! Every body is answered as an unreadable one is; drivers read the reason from the headers (facts 6.1).

use http::{HeaderName, StatusCode};

use crate::embedded::answer::{Answer, Refusal, set, text};
use crate::embedded::call::Call;
use crate::embedded::grants::WAREHOUSES;

const THRIFT_MESSAGE: HeaderName = HeaderName::from_static("x-thriftserver-error-message");
const REDIRECT_MESSAGE: HeaderName =
    HeaderName::from_static("x-databricks-error-or-redirect-message");
const UNREADABLE: &str = "Failed to deserialize the Thrift request.";

pub(in crate::embedded) fn answer(call: &Call, path: &[&str]) -> Result<Answer, Refusal> {
    let ("POST", ["sql", "1.0", "warehouses" | "endpoints", warehouse]) =
        (call.method.as_str(), path)
    else {
        return Err(call.no_endpoint());
    };
    call.caller.may_use(WAREHOUSES, warehouse)?;
    let kind = "application/x-thrift";
    let mut answer = text(StatusCode::BAD_REQUEST, kind, String::new());
    set(&mut answer, THRIFT_MESSAGE, UNREADABLE);
    set(&mut answer, REDIRECT_MESSAGE, UNREADABLE);
    Ok(answer)
}
