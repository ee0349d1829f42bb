//! Everything that a call says, read and validated before anything is touched: no file, namespace or socket is opened here.

use crate::attachment::{Described, describe};
use crate::config::{CHECK_SINCE, Config, STATUS_AND_GC_SINCE, ValidAttachment};
use crate::error::CniError;
use crate::invocation::{Attachment, Command, Environment, PodIdentity, netns};
use serde_json::Value;
use std::path::PathBuf;

/// A valid call.
#[derive(Debug)]
pub enum Request {
    /// Which versions are served; answered whatever stands on stdin.
    Version,
    /// Any other command, and where to ask.
    Ask(Config, Question),
}

/// What the dataplane is to be asked.
#[derive(Debug, PartialEq, Eq)]
pub enum Question {
    /// ADD.
    Add(Box<Addition>),
    /// DEL; the sandbox's namespace where the runtime still names one.
    Del(Attachment, Option<PathBuf>),
    /// CHECK.
    Check(Box<Examination>),
    /// STATUS.
    Status,
    /// GC: what still exists.
    Gc(Vec<ValidAttachment>),
}

/// What ADD is about.
#[derive(Debug, PartialEq, Eq)]
pub struct Addition {
    /// The sandbox and the interface in it.
    pub attachment: Attachment,
    /// The sandbox's network namespace.
    pub netns: PathBuf,
    /// The pod.
    pub identity: PodIdentity,
    /// What the plugins before this one made, as they said it.
    pub prev_result: Value,
    /// The parts of it that matter here.
    pub described: Described,
}

/// What CHECK is about.
#[derive(Debug, PartialEq, Eq)]
pub struct Examination {
    /// The sandbox and the interface in it.
    pub attachment: Attachment,
    /// The sandbox's network namespace, where it is named.
    pub netns: Option<PathBuf>,
    /// What ADD's result said, where the runtime gives it back.
    pub described: Option<Described>,
}

impl Request {
    /// Reads the environment and stdin.
    ///
    /// # Errors
    /// The specification's codes for the environment, the decoding, the version and the configuration.
    pub fn read(environment: Environment<'_>, input: &[u8]) -> Result<Self, CniError> {
        let command = Command::from_environment(environment)?;
        if command == Command::Version {
            return Ok(Self::Version);
        }
        let mut config = Config::parse(input)?;
        let question = match command {
            Command::Add => Question::Add(Box::new(Addition::read(environment, &mut config)?)),
            Command::Del => {
                config.check_version()?;
                Question::Del(Attachment::from_environment(environment)?, netns(environment).ok())
            }
            Command::Check => Question::Check(Box::new(Examination::read(environment, &mut config)?)),
            Command::Status => {
                config.check_version_since(STATUS_AND_GC_SINCE, "STATUS")?;
                Question::Status
            }
            Command::Gc => {
                config.check_version_since(STATUS_AND_GC_SINCE, "GC")?;
                Question::Gc(config.required_valid_attachments()?)
            }
            Command::Version => unreachable!("answered above"),
        };
        Ok(Self::Ask(config, question))
    }
}

impl Addition {
    fn read(environment: Environment<'_>, config: &mut Config) -> Result<Self, CniError> {
        config.check_version()?;
        let attachment = Attachment::from_environment(environment)?;
        let netns = netns(environment)?;
        let identity = PodIdentity::from_environment(environment)?;
        let prev_result = config.required_prev_result()?;
        let described = describe(&prev_result, &netns, &attachment.ifname)?;
        Ok(Self { attachment, netns, identity, prev_result, described })
    }
}

impl Examination {
    fn read(environment: Environment<'_>, config: &mut Config) -> Result<Self, CniError> {
        config.check_version_since(CHECK_SINCE, "CHECK")?;
        let attachment = Attachment::from_environment(environment)?;
        let netns = netns(environment).ok();
        let described = match (&netns, config.prev_result.take()) {
            (Some(netns), Some(previous)) => Some(describe(&previous, netns, &attachment.ifname)?),
            _ => None,
        };
        Ok(Self { attachment, netns, described })
    }
}
