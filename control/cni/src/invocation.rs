//! The environment of a call: `CNI_*` variables, validated before anything is touched.

use crate::error::CniError;
use sluice_flow::ObjectName;
use std::ffi::OsString;
use std::path::PathBuf;

/// Reads one environment variable; a parameter so that tests need not change the process's environment.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// `CNI_COMMAND`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Add,
    Del,
    Check,
    Status,
    Gc,
    Version,
}

impl Command {
    pub(crate) fn from_environment(environment: Environment<'_>) -> Result<Self, CniError> {
        match required(environment, "CNI_COMMAND")?.as_str() {
            "ADD" => Ok(Self::Add),
            "DEL" => Ok(Self::Del),
            "CHECK" => Ok(Self::Check),
            "STATUS" => Ok(Self::Status),
            "GC" => Ok(Self::Gc),
            "VERSION" => Ok(Self::Version),
            other => Err(CniError::environment("CNI_COMMAND", format!("unknown command {other:?}"))),
        }
    }
}

/// Which attachment a command is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
}

impl Attachment {
    /// Reads and validates both names by the specification's rules.
    pub(crate) fn from_environment(environment: Environment<'_>) -> Result<Self, CniError> {
        let container_id = required(environment, "CNI_CONTAINERID")?;
        let mut characters = container_id.chars();
        let valid = characters.next().is_some_and(|c| c.is_ascii_alphanumeric())
            && characters.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
        if !valid {
            let details = format!("{container_id:?} must start with a letter or digit and hold only those, '_', '.', '-'");
            return Err(CniError::environment("CNI_CONTAINERID", details));
        }
        let ifname = required(environment, "CNI_IFNAME")?;
        // The kernel's own rules (dev_valid_name): at most 15 bytes, no '/', ':' or space, neither "." nor "..".
        let valid =
            ifname.len() <= 15 && ifname != "." && ifname != ".." && !ifname.contains(|c: char| c == '/' || c == ':' || c.is_whitespace());
        if !valid {
            return Err(CniError::environment("CNI_IFNAME", format!("{ifname:?} cannot name an interface")));
        }
        Ok(Self { container_id, ifname })
    }
}

/// `CNI_NETNS`, as a path.
pub(crate) fn netns(environment: Environment<'_>) -> Result<PathBuf, CniError> {
    required(environment, "CNI_NETNS").map(PathBuf::from)
}

/// The pod, from `CNI_ARGS` as every Kubernetes runtime passes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodIdentity {
    /// Namespace and name.
    pub pod: ObjectName,
    /// Empty where the runtime did not tell.
    pub uid: String,
}

impl PodIdentity {
    /// `K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;K8S_POD_UID=c`; other keys are for other plugins.
    pub(crate) fn from_environment(environment: Environment<'_>) -> Result<Self, CniError> {
        let text = required(environment, "CNI_ARGS")?;
        let mut namespace = None;
        let mut name = None;
        let mut uid = String::new();
        for pair in text.split(';').filter(|pair| !pair.is_empty()) {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(CniError::environment("CNI_ARGS", format!("{pair:?} is not KEY=VALUE")));
            };
            match key {
                "K8S_POD_NAMESPACE" => namespace = Some(value.to_owned()),
                "K8S_POD_NAME" => name = Some(value.to_owned()),
                "K8S_POD_UID" => value.clone_into(&mut uid),
                _ => {}
            }
        }
        let part = |value: Option<String>, key: &str| {
            let value = value.ok_or_else(|| CniError::environment("CNI_ARGS", format!("{key} is missing")))?;
            if value.is_empty() || value.contains('/') {
                return Err(CniError::environment("CNI_ARGS", format!("{key} is {value:?}")));
            }
            Ok(value)
        };
        let pod = ObjectName::new(part(namespace, "K8S_POD_NAMESPACE")?, part(name, "K8S_POD_NAME")?);
        Ok(Self { pod, uid })
    }
}

fn required(environment: Environment<'_>, name: &str) -> Result<String, CniError> {
    let value = environment(name).filter(|value| !value.is_empty());
    let value = value.ok_or_else(|| {
        let hint = "it is missing; CNI plugins are run by a container runtime, see the CNI specification, or sluice-cni --help";
        CniError::environment(name, hint)
    })?;
    value.into_string().map_err(|_| CniError::environment(name, "not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    fn environment(pairs: &'static [(&'static str, &'static str)]) -> impl Fn(&str) -> Option<OsString> {
        move |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
    }

    #[test]
    fn names_that_no_kernel_or_runtime_could_have_made_are_refused() {
        for (id, ifname, valid) in [
            ("abc-1.2_3", "eth0", true),
            ("-abc", "eth0", false),
            ("a b", "eth0", false),
            ("a/../b", "eth0", false),
            ("abc", "sixteen-letters.", false),
            ("abc", "a/b", false),
            ("abc", "..", false),
            ("abc", "", false),
            ("", "eth0", false),
        ] {
            let read = |name: &str| Some(OsString::from(if name == "CNI_IFNAME" { ifname } else { id }));
            let outcome = Attachment::from_environment(&read);
            assert_eq!(outcome.is_ok(), valid, "{id:?} {ifname:?}");
            if let Err(error) = outcome {
                assert_eq!(error.code, Code::InvalidEnvironment);
            }
        }
    }

    #[test]
    fn the_pod_comes_from_cni_args() {
        let env = environment(&[("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=x;K8S_POD_NAME=web;K8S_POD_UID=u-1")]);
        let identity = PodIdentity::from_environment(&env).unwrap();
        assert_eq!((identity.pod.to_string(), identity.uid), ("x/web".to_owned(), "u-1".to_owned()));
        for args in ["K8S_POD_NAME=web", "K8S_POD_NAMESPACE=x", "K8S_POD_NAMESPACE=;K8S_POD_NAME=web", "nonsense"] {
            let read = |_: &str| Some(OsString::from(args));
            assert_eq!(PodIdentity::from_environment(&read).unwrap_err().code, Code::InvalidEnvironment, "{args}");
        }
    }

    #[test]
    fn an_unknown_or_missing_command_is_an_environment_error() {
        for command in [None, Some(""), Some("add"), Some("FROBNICATE")] {
            let read = |_: &str| command.map(OsString::from);
            assert_eq!(Command::from_environment(&read).unwrap_err().code, Code::InvalidEnvironment, "{command:?}");
        }
    }
}
