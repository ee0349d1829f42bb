//! The server as a process, as a shell script starts it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running process that ends with the test.
struct Running {
    child: Child,
    url: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(arguments: &[&str]) -> Running {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice-apiserver"));
    let mut child = command.args(arguments).stdout(Stdio::piped()).spawn().expect("the binary starts");
    let mut url = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut url).expect("it prints its URL");
    Running { child, url: url.trim().to_owned() }
}

fn ask(running: &Running, head: &str, body: &str) -> String {
    let address = running.url.strip_prefix("http://").expect("plain HTTP");
    let mut stream = TcpStream::connect(address).expect("it listens");
    write!(
        stream,
        "{head} HTTP/1.1\r\nConnection: close\r\nContent-Type: application/yaml\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn manifests_faults_and_the_ordinary_api_work_together() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    std::fs::create_dir(path("manifests")).unwrap();
    std::fs::write(path("manifests/x.yaml"), "apiVersion: v1\nkind: Namespace\nmetadata: {name: x}\n").unwrap();
    std::fs::write(path("faults.yaml"), "- {resource: services, verb: list, nth: 1, fault: {status: {code: 503}}}\n").unwrap();
    let (manifests, faults, kubeconfig) = (path("manifests"), path("faults.yaml"), path("kubeconfig"));
    let running = start(&["--manifests", &manifests, "--faults", &faults, "--kubeconfig", &kubeconfig, "--pods", "10"]);
    let policy = "kind: NetworkPolicy\nmetadata: {name: p}\nspec: {podSelector: {}}\n";
    let made = ask(&running, "POST /apis/networking.k8s.io/v1/namespaces/x/networkpolicies", policy);
    assert!(made.starts_with("HTTP/1.1 201") && made.contains(r#""policyTypes":["Ingress"]"#), "{made}");
    assert!(ask(&running, "GET /api/v1/services", "").starts_with("HTTP/1.1 503"));
    assert!(ask(&running, "GET /api/v1/services", "").starts_with("HTTP/1.1 200"));
    assert_eq!(ask(&running, "GET /api/v1/pods", "").matches(r#""podIP""#).count(), 10);
    assert!(std::fs::read_to_string(kubeconfig).unwrap().contains(&running.url));
}

#[test]
fn an_outage_refuses_everybody_and_keeps_every_object() {
    let running = start(&["--pods", "10"]);
    let address = running.url.strip_prefix("http://").unwrap().to_owned();
    let pid = rustix::process::Pid::from_child(&running.child);
    let reachable = |wanted: bool| {
        let deadline = Instant::now() + Duration::from_secs(5);
        while TcpStream::connect(&address).is_ok() != wanted {
            assert!(Instant::now() < deadline, "reachable: {}", !wanted);
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    for _ in 0..2 {
        rustix::process::kill_process(pid, rustix::process::Signal::USR1).unwrap();
        reachable(false);
        rustix::process::kill_process(pid, rustix::process::Signal::USR2).unwrap();
        reachable(true);
        assert_eq!(ask(&running, "GET /api/v1/pods", "").matches(r#""podIP""#).count(), 10);
    }
}

#[test]
fn changes_go_on_by_themselves() {
    let running = start(&["--changes-per-second", "200", "--seed", "4"]);
    let watch = ask(&running, "GET /api/v1/pods?watch=true&timeoutSeconds=1", "");
    assert!(watch.matches("MODIFIED").count() > 5, "{watch:.2000}");
}

#[test]
fn a_recording_is_served_from_its_file() {
    let running = start(&["--replay", concat!(env!("CARGO_MANIFEST_DIR"), "/recorded.tar.xz"), "--speed", "0"]);
    assert!(ask(&running, "GET /api/v1/pods?limit=3", "").contains(r#""remainingItemCount":8"#));
}

#[test]
fn what_is_wrong_with_the_options_is_said() {
    let failed = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_sluice-apiserver")).args(arguments).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(failed(&["--faults", "/nosuch.yaml"]).contains("/nosuch.yaml"));
    assert!(failed(&["--manifests", "/nosuch"]).contains("/nosuch"));
    assert!(failed(&["--replay", "/nosuch.tar.xz"]).contains("/nosuch.tar.xz"));
}
