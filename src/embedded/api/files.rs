//! The Files API: upload, download with ranges, head, delete, directories, and presigned downloads where switched on.
//!
//! Bytes are in `file_store.rs`. Links for the parts of an upload are refused, on which
//! clients send one plain PUT.

use std::collections::BTreeMap;

use http::header::{
    ACCEPT_RANGES, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LAST_MODIFIED, RANGE,
};
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};

use super::file_store::{StoreFault, Stored};
use super::mlflow::may_reach_artifact;
use crate::domain::clock::Timestamp;
use crate::embedded::answer::{Answer, Refusal, bare, json_ok, set, text};
use crate::embedded::call::{Call, segments, word};
use crate::embedded::grants::{Caller, VOLUMES};
use crate::embedded::workspace::Site;
use crate::runtime::http_client::empty;

/// Stands in for cloud storage: reached by a presigned link, never with a workspace credential.
const STORAGE: &str = "/embedded-storage";

/// Whether a path belongs to the stand-in for cloud storage.
pub(in crate::embedded) fn is_storage(path: &str) -> bool {
    path.strip_prefix(STORAGE)
        .is_some_and(|rest| rest.starts_with('/'))
}

pub(in crate::embedded) async fn answer(
    site: &Site,
    call: &mut Call,
    path: &[&str],
) -> Result<Answer, Refusal> {
    match path {
        ["api", "2.0", "fs", "files", rest @ ..] => {
            let file = format!("/{}", rest.join("/"));
            may_reach(site, &call.caller, &file)?;
            on_file(site, call, &file).await
        }
        ["api", "2.0", "fs", "directories", rest @ ..] => {
            let directory = format!("/{}", rest.join("/"));
            let directory = directory.trim_end_matches('/');
            may_reach(site, &call.caller, directory)?;
            on_directory(site, call, directory)
        }
        ["api", "2.0", "fs", "create-download-url"] => {
            let file = call
                .query("path")
                .ok_or_else(|| Refusal::bad_request("Missing required field: path"))?;
            may_reach(site, &call.caller, file)?;
            if !site.presigned_downloads {
                return Err(Refusal::presigning_off());
            }
            site.files.find(file).ok_or_else(Refusal::no_file)?;
            let raw = form_urlencoded::byte_serialize(file.as_bytes()).collect::<String>();
            let life = std::time::Duration::from_secs(900);
            // The link is a bearer secret like the platform's: whoever has it may read.
            let signature = site.issuer.mint(file, "storage", "download", life);
            let url = format!(
                "{}{STORAGE}/file?path={raw}&X-Signature={signature}",
                site.url
            );
            Ok(json_ok(&json!({ "url": url, "headers": [] })))
        }
        [
            "api",
            "2.0",
            "fs",
            "create-upload-part-urls" | "create-resumable-upload-url" | "create-abort-upload-url",
        ] => {
            let body = call.json().await?;
            may_reach(site, &call.caller, word(&body, "path")?)?;
            Err(Refusal::presigning_off())
        }
        _ => Err(call.no_endpoint()),
    }
}

/// Whether the caller has a grant on the volume, or the experiment, a path lies in. Other roots belong to everybody.
fn may_reach(site: &Site, caller: &Caller, path: &str) -> Result<(), Refusal> {
    let Some(inside) = path.strip_prefix("/Volumes/") else {
        return may_reach_artifact(site, caller, path);
    };
    let names: Vec<&str> = inside.splitn(4, '/').take(3).collect();
    caller.may_use(VOLUMES, &names.join("."))
}

/// A call on the stand-in for cloud storage.
pub(in crate::embedded) async fn from_storage(
    site: &Site,
    parts: &Parts,
) -> Result<Answer, Refusal> {
    if parts.headers.contains_key(AUTHORIZATION) {
        let message = "<Error><Code>InvalidArgument</Code><Message>Only one auth mechanism allowed</Message></Error>";
        return Ok(text(
            StatusCode::BAD_REQUEST,
            "application/xml",
            message.to_owned(),
        ));
    }
    let query = parts.uri.query().unwrap_or_default();
    let field = |wanted: &str| {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        let found = pairs.find(|(name, _)| name == wanted);
        found
            .map(|(_, value)| value.into_owned())
            .unwrap_or_default()
    };
    let file = field("path");
    let signed = site.issuer.verify(&field("X-Signature"));
    if signed.is_none_or(|s| s.subject != file) || segments(parts.uri.path()).len() != 2 {
        let message = "<Error><Code>AccessDenied</Code></Error>";
        return Ok(text(
            StatusCode::FORBIDDEN,
            "application/xml",
            message.to_owned(),
        ));
    }
    let stored = site.files.find(&file).ok_or_else(Refusal::no_file)?;
    download(&stored, &parts.headers)
}

async fn on_file(site: &Site, call: &mut Call, file: &str) -> Result<Answer, Refusal> {
    match call.method.as_str() {
        "PUT" => {
            if call.query("overwrite") != Some("true") && site.files.find(file).is_some() {
                return Err(Refusal::exists("The file"));
            }
            let now = site.issuer.clock.now().as_millisecond();
            let body = call.body.take().unwrap_or_else(empty);
            match site.files.put(file, body, now).await {
                Ok(()) => Ok(bare(StatusCode::NO_CONTENT)),
                Err(StoreFault::TooLarge) => Err(Refusal::too_large("The file is too large.")),
                Err(StoreFault::Sender) => Err(Refusal::bad_request("The upload broke off.")),
                Err(fault @ StoreFault::Disk(_)) => Err(Refusal::internal(fault.to_string())),
            }
        }
        "GET" => download(
            &site.files.find(file).ok_or_else(Refusal::no_file)?,
            &call.headers,
        ),
        "HEAD" => {
            let stored = site.files.find(file).ok_or_else(Refusal::no_file)?;
            let mut answer = bare(StatusCode::OK);
            describe(&mut answer, &stored, stored.bytes);
            Ok(answer)
        }
        "DELETE" if site.files.remove(file) => Ok(bare(StatusCode::NO_CONTENT)),
        "DELETE" => Err(Refusal::no_file()),
        "POST" if call.query("action") == Some("initiate-upload") => {
            // A session begins although it leads nowhere: clients turn to the plain path only when asked-for part links
            // are refused.
            let token = uuid::Uuid::now_v7().to_string();
            Ok(json_ok(
                &json!({ "multipart_upload": { "session_token": token } }),
            ))
        }
        "POST" => Err(Refusal::presigning_off()),
        _ => Err(call.no_endpoint()),
    }
}

/// Whether a path is that of a volume itself; whether it exists was asked before.
fn is_volume(path: &str) -> bool {
    { path.strip_prefix("/Volumes/") }.is_some_and(|names| names.split('/').count() == 3)
}

fn on_directory(site: &Site, call: &Call, directory: &str) -> Result<Answer, Refusal> {
    match call.method.as_str() {
        "PUT" => {
            site.files.make_directory(directory);
            Ok(bare(StatusCode::NO_CONTENT))
        }
        "HEAD" => {
            site.files.list(directory).ok_or_else(Refusal::no_file)?;
            Ok(bare(StatusCode::OK))
        }
        "DELETE" if site.files.remove_directory(directory) => Ok(bare(StatusCode::NO_CONTENT)),
        "DELETE" => Err(Refusal::no_file()),
        "GET" => {
            let listed = site.files.list(directory);
            // A volume is a directory before anything lies in it.
            let listed = listed.or_else(|| is_volume(directory).then(BTreeMap::new));
            let found = listed.ok_or_else(Refusal::no_file)?;
            let contents: Vec<Value> = found
                .iter()
                .map(|(name, file)| {
                    let path = format!("{directory}/{name}");
                    match file {
                        Some(f) => json!({
                            "path": path, "name": name, "is_directory": false,
                            "file_size": f.bytes, "last_modified": f.changed_ms,
                        }),
                        None => json!({ "path": path, "name": name, "is_directory": true }),
                    }
                })
                .collect();
            Ok(json_ok(&json!({ "contents": contents })))
        }
        _ => Err(call.no_endpoint()),
    }
}

fn download(stored: &Stored, headers: &HeaderMap) -> Result<Answer, Refusal> {
    let asked = headers.get(RANGE).and_then(|v| v.to_str().ok());
    let Some(asked) = asked else {
        let mut answer = Response::new(stored.read(0, stored.bytes));
        describe(&mut answer, stored, stored.bytes);
        return Ok(answer);
    };
    let Some((start, end)) = range(asked, stored.bytes) else {
        let mut answer = bare(StatusCode::RANGE_NOT_SATISFIABLE);
        set(
            &mut answer,
            CONTENT_RANGE,
            &format!("bytes */{}", stored.bytes),
        );
        return Ok(answer);
    };
    let count = end - start + 1;
    let mut answer = Response::new(stored.read(start, count));
    *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
    describe(&mut answer, stored, count);
    let place = format!("bytes {start}-{end}/{}", stored.bytes);
    set(&mut answer, CONTENT_RANGE, &place);
    Ok(answer)
}

fn describe(answer: &mut Answer, stored: &Stored, bytes: u64) {
    set(answer, CONTENT_LENGTH, &bytes.to_string());
    set(answer, CONTENT_TYPE, "application/octet-stream");
    set(answer, ACCEPT_RANGES, "bytes");
    if let Ok(changed) = Timestamp::from_millisecond(stored.changed_ms) {
        let date = changed.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        set(answer, LAST_MODIFIED, &date);
    }
}

/// First and last byte of a single range; `None` where it lies outside.
fn range(asked: &str, bytes: u64) -> Option<(u64, u64)> {
    let (start, end) = asked.strip_prefix("bytes=")?.split_once('-')?;
    let last = bytes.checked_sub(1)?;
    if start.is_empty() {
        let count: u64 = end.parse().ok()?;
        return (count > 0).then(|| (bytes.saturating_sub(count), last));
    }
    let start: u64 = start.parse().ok()?;
    let end = if end.is_empty() {
        last
    } else {
        end.parse().ok()?
    };
    (start <= end && start <= last).then(|| (start, end.min(last)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_single_and_inside_the_file() {
        assert_eq!(range("bytes=0-9", 100), Some((0, 9)));
        assert_eq!(range("bytes=90-", 100), Some((90, 99)));
        assert_eq!(range("bytes=-5", 100), Some((95, 99)));
        assert_eq!(range("bytes=50-500", 100), Some((50, 99)));
        for bad in [
            "bytes=100-",
            "bytes=9-1",
            "items=0-1",
            "bytes=a-b",
            "bytes=-0",
        ] {
            assert_eq!(range(bad, 100), None, "{bad}");
        }
        assert_eq!(range("bytes=0-", 0), None);
    }
}
