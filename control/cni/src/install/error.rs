//! Why the plugin could not be put in or taken out, with what to do.

use super::edit::PLUGIN;
use std::io;
use std::path::PathBuf;

/// Why a configuration cannot be chained.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unchainable {
    #[error("it is no JSON: {0}")]
    NoJson(String),
    #[error("it is no JSON object")]
    NoObject,
    #[error("{0}")]
    Form(String),
    #[error("it has no plugins besides {PLUGIN}: a chained plugin needs one before it that makes the pod's interface")]
    NoPlugins,
    #[error("a plugin in it has no type")]
    NoType,
    #[error("it has no name, which the CNI specification requires")]
    NoName,
    #[error("it is a list of plugins under the name of a single one: rename it to .conflist")]
    ListInConf,
    #[error("its cniVersion is {found}; {PLUGIN} serves {served}. Raise the version if its plugins serve one of those")]
    Version { found: String, served: String },
}

/// Why `install` or `uninstall` failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum InstallError {
    #[error("no network configuration in {} (*.conflist, *.conf, *.json): install the cluster's CNI plugin first", .0.display())]
    NoConfiguration(PathBuf),
    #[error("{}: {reason}", file.display())]
    Unchainable { file: PathBuf, reason: Unchainable },
    #[error("{} is in the way of the list that {} would become: remove one of them", list.display(), single.display())]
    InTheWay { list: PathBuf, single: PathBuf },
    #[error("as the list {}, the configuration would not be the first in its directory any more: {} would be chosen", list.display(), other.display())]
    NotFirst { list: PathBuf, other: PathBuf },
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {}: {source}; what was there before stays", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot remove {}: {source}", path.display())]
    Remove { path: PathBuf, source: io::Error },
    #[error("ended by a signal before there was a configuration; nothing was changed")]
    Interrupted,
}

impl InstallError {
    /// Whether time may help: the cluster's own installer has not finished, or has not begun.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, Self::NoConfiguration(_) | Self::Unchainable { reason: Unchainable::NoJson(_) | Unchainable::NoObject, .. })
    }
}
