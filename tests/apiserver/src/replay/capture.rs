//! One recorded request and its answer.

use super::archive::RecordingError;
use crate::query::{Query, split_target};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// The page size of common clients; no recorded list is longer.
const GENEROUS_LIMIT: usize = 500;

/// A watch event as it was received.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct WatchEvent {
    /// `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK` or `ERROR`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The object, typed.
    pub object: Value,
}

impl WatchEvent {
    /// The object's resourceVersion; 0 if it has none.
    pub fn version(&self) -> u64 {
        self.object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0)
    }
}

/// A recorded request with the bytes of its answer.
#[derive(Debug, Clone)]
pub struct Capture {
    name: String,
    path: Vec<String>,
    query: Query,
    accept: String,
    status_line: String,
    headers: Vec<String>,
    end: Option<String>,
    started_s: f64,
    ended_s: f64,
    http: Vec<u8>,
    times: Vec<Time>,
    body: Option<(String, Vec<u8>)>,
}

#[derive(Debug, Deserialize)]
struct Meta {
    request: MetaRequest,
    status_line: String,
    #[serde(default)]
    headers: Vec<String>,
    #[serde(default)]
    started_t: f64,
    #[serde(default)]
    ended_t: f64,
    end: Option<String>,
}

#[derive(Debug, Deserialize)]
struct MetaRequest {
    path: String,
    accept: String,
}

/// When a chunk arrived, and its size.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Time {
    t: f64,
    bytes: usize,
}

/// How the answer of a capture ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The last chunk, or all of the body; the connection could go on.
    InOrder,
    /// In order, and the server closed the connection.
    Close,
    /// The connection broke off.
    BrokenOff,
}

impl Capture {
    /// Reads the files of one capture.
    pub(super) fn read(name: &str, files: &BTreeMap<String, Vec<u8>>) -> Result<Self, RecordingError> {
        let file = |suffix: &str| format!("{name}.{suffix}");
        let meta_file = file("meta.json");
        let meta = files.get(&meta_file).ok_or_else(|| RecordingError::Missing(meta_file.clone()))?;
        let meta: Meta = serde_json::from_slice(meta).map_err(|source| RecordingError::Json { file: meta_file, source })?;
        let times = files.get(&file("times.jsonl")).map_or(Ok(Vec::new()), |bytes| lines(&file("times.jsonl"), bytes))?;
        let body = ["json", "jsonl"].iter().find_map(|suffix| files.get(&file(suffix)).map(|bytes| (file(suffix), bytes.clone())));
        let (path, query) = split_target(&meta.request.path);
        let http_file = file("http");
        Ok(Self {
            name: name.to_owned(),
            path,
            query,
            accept: meta.request.accept,
            status_line: meta.status_line,
            headers: meta.headers,
            end: meta.end,
            started_s: meta.started_t,
            ended_s: meta.ended_t,
            http: files.get(&http_file).cloned().ok_or(RecordingError::Missing(http_file))?,
            times,
            body,
        })
    }

    /// Scenario and file name without suffix, such as `scenario1/pods.1-watch`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The HTTP status; `None` if the connection was closed without an answer.
    pub fn code(&self) -> Option<u16> {
        self.status_line.strip_prefix("HTTP/1.1 ")?.split(' ').next()?.parse().ok()
    }

    /// The raw bytes of the answer.
    pub fn http(&self) -> &[u8] {
        &self.http
    }

    /// The decoded body.
    ///
    /// Errors: a body that is no JSON document.
    pub fn json(&self) -> Result<Value, RecordingError> {
        let (file, bytes) = self.body.as_ref().ok_or_else(|| RecordingError::Missing(format!("{}.json", self.name)))?;
        serde_json::from_slice(bytes).map_err(|source| RecordingError::Json { file: file.clone(), source })
    }

    /// The events of a watch.
    ///
    /// Errors: a body that is no stream of events.
    pub fn events(&self) -> Result<Vec<WatchEvent>, RecordingError> {
        let (file, bytes) = self.body.as_ref().ok_or_else(|| RecordingError::Missing(format!("{}.jsonl", self.name)))?;
        lines(file, bytes)
    }

    /// The answer in the pieces in which it arrived, each with its time since the request.
    pub(super) fn pieces(&self) -> Result<Vec<(Duration, &[u8])>, RecordingError> {
        if self.times.is_empty() {
            return Ok(vec![(Duration::ZERO, &self.http)]);
        }
        let mismatch = || RecordingError::Chunks(self.name.clone());
        let head_bytes = self.http.windows(4).position(|window| window == b"\r\n\r\n").ok_or_else(mismatch)? + 4;
        let mut pieces = vec![(Duration::ZERO, &self.http[..head_bytes])];
        let mut rest = &self.http[head_bytes..];
        if !self.is_chunked() {
            pieces.push((self.since_start(self.ended_s), rest));
            return Ok(pieces);
        }
        for time in &self.times {
            let parsed = httparse::parse_chunk_size(rest).map_err(|_| mismatch())?;
            let httparse::Status::Complete((header_bytes, data_bytes)) = parsed else { return Err(mismatch()) };
            let chunk_bytes = header_bytes + data_bytes as usize + 2;
            if data_bytes as usize != time.bytes || chunk_bytes > rest.len() {
                return Err(mismatch());
            }
            let (chunk, behind) = rest.split_at(chunk_bytes);
            pieces.push((self.since_start(time.t), chunk));
            rest = behind;
        }
        pieces.push((self.since_start(self.ended_s), rest));
        Ok(pieces)
    }

    fn since_start(&self, at_s: f64) -> Duration {
        Duration::try_from_secs_f64(at_s - self.started_s).unwrap_or(Duration::ZERO)
    }

    pub(super) fn end(&self) -> End {
        if self.code().is_none() || self.end.as_deref() == Some("connection-closed") {
            End::BrokenOff
        } else if self.has_header("Connection: close") {
            End::Close
        } else {
            End::InOrder
        }
    }

    /// Whether the request was this one, whatever the order of its query.
    pub(super) fn is_exactly(&self, path: &[String], query: &Query) -> bool {
        self.path == path && significant(&self.query) == significant(query)
    }

    /// Whether this is what a client of another page size or timeout asks for: a whole list, or a watch from the
    /// same version, under the same selectors.
    pub(super) fn is_nearly(&self, path: &[String], query: &Query) -> bool {
        let same = |name: &str| self.query.get(name) == query.get(name);
        let version = |query: &Query| query.get("resourceVersion").filter(|version| *version != "0").map(str::to_owned);
        let alike = self.path == path
            && self.code() == Some(200)
            && self.query.is_true("watch") == query.is_true("watch")
            && ["fieldSelector", "labelSelector", "sendInitialEvents", "continue"].iter().all(|name| same(name));
        let limited = significant(&self.query).iter().any(|(name, _)| name == "limit");
        let whole = !limited && version(&self.query).is_none();
        alike && if query.is_true("watch") { version(&self.query) == version(query) } else { whole && version(query).is_none() }
    }

    /// Whether the answer is plain JSON, as it is served to a client that asks for no other form.
    pub(super) fn is_plain(&self) -> bool {
        self.accept == "application/json" && !self.has_header("Content-Encoding: gzip")
    }

    pub(super) fn accepts(&self, accept: &str) -> bool {
        self.accept == accept
    }

    fn is_chunked(&self) -> bool {
        self.has_header("Transfer-Encoding: chunked")
    }

    fn has_header(&self, line: &str) -> bool {
        self.headers.iter().any(|header| header == line)
    }
}

/// The parameters that decide what a list shows: a limit above the size of every recorded list does not.
fn significant(query: &Query) -> Vec<(String, String)> {
    let generous = |value: &str| value.parse().is_ok_and(|limit: usize| limit >= GENEROUS_LIMIT);
    query.sorted().into_iter().filter(|(name, value)| !(name == "limit" && generous(value))).collect()
}

fn lines<T: for<'d> Deserialize<'d>>(file: &str, bytes: &[u8]) -> Result<Vec<T>, RecordingError> {
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).map_err(|source| RecordingError::Json { file: file.to_owned(), source })).collect()
}
