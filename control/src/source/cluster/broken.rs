//! Why a watch does not go on as it was, and what follows from that.

use super::pace::Pace;
use kube::core::Status;
use std::time::Duration;

/// See the module.
#[derive(Debug)]
pub(super) struct Broken {
    /// For people; `None` where a stream ended in order, as every stream does after some minutes.
    pub(super) reason: Option<String>,
    /// At least so long nothing is asked.
    pub(super) pause: Duration,
    pub(super) then: Then,
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// Go on from the last version, if there is one.
    Resume,
    /// List everything again.
    Begin,
    /// Likewise, but in pages.
    ListInPages,
    /// Nobody listens any more.
    Leave,
}

impl Broken {
    pub(super) fn ended() -> Self {
        Self { reason: None, pause: Duration::ZERO, then: Then::Resume }
    }

    pub(super) fn resume(reason: impl Into<String>) -> Self {
        Self { reason: Some(reason.into()), ..Self::ended() }
    }

    pub(super) fn begin(reason: impl Into<String>) -> Self {
        Self::resume(reason).beginning()
    }

    pub(super) fn unheard() -> Self {
        Self { then: Then::Leave, ..Self::ended() }
    }

    pub(super) fn no_streamed_lists(error: &kube::Error) -> Self {
        Self { then: Then::ListInPages, ..Self::resume(chain(error)) }
    }

    /// Servers before 1.27 ignore that a list is asked for, and never say that it is whole.
    pub(super) fn endless_list() -> Self {
        Self { then: Then::ListInPages, ..Self::resume("the streamed list does not come to its end") }
    }

    /// `doing`: what failed, in words.
    pub(super) fn by(error: &kube::Error, doing: &str, pace: &Pace) -> Self {
        match error {
            kube::Error::Api(status) => Self::by_status(status, doing, pace),
            // what could not be read would be lost by going on behind it
            kube::Error::SerdeError(_) => Self::begin(format!("{doing}: {}", chain(error))),
            _ => Self::resume(format!("{doing}: {}", chain(error))),
        }
    }

    pub(super) fn by_status(status: &Status, doing: &str, pace: &Pace) -> Self {
        let Status { code, message, reason, details, .. } = status;
        let advice = match code {
            401 => " (the credentials are refused: renew the token, or look whether the service account still exists)",
            403 => " (this kind may not be listed and watched: the ClusterRole must allow both)",
            _ => "",
        };
        let message = if message.is_empty() { reason } else { message };
        let asked_s = details.as_ref().map(|details| details.retry_after_seconds);
        Self {
            reason: Some(format!("{doing}: {code} {message}{advice}")),
            pause: pace.pause(*code, asked_s),
            then: if *code == 410 { Then::Begin } else { Then::Resume },
        }
    }

    /// The same, but everything is listed again.
    pub(super) fn beginning(self) -> Self {
        Self { then: Then::Begin, ..self }
    }
}

/// The error with its causes, each said once.
fn chain(error: &kube::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text += ": ";
            text += &part;
        }
        cause = error.source();
    }
    text
}
