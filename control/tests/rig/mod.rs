//! The real binary, and a dataplane that the test plays with the wire crate.

pub(crate) mod cluster;
pub(crate) mod http;

use sluice_flow::{Addr, Direction, Incarnation, LocalEndpoint, ObjectName, PortIndex, Protocol};
use sluice_table::Table;
use sluice_table::seal::read_sealed;
use sluice_wire::{Connection, ControlStatus, FromControl, FromDataplane, Listener, ToControl, ToDataplane};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Generous for a busy machine; the assertions on speed say their own bound.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Control {
    pub(crate) process: Child,
    pub(crate) dir: tempfile::TempDir,
}

impl Control {
    /// Starts the binary on `files`; `manifests` is created unless the test wants it missing.
    pub(crate) fn start(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let manifests = dir.path().join("manifests");
        std::fs::create_dir(&manifests).unwrap();
        for (name, text) in files {
            std::fs::write(manifests.join(name), text).unwrap();
        }
        Self::start_in(dir)
    }

    pub(crate) fn start_in(dir: tempfile::TempDir) -> Self {
        let process = on_manifests(dir.path()).spawn().unwrap();
        Self { process, dir }
    }

    /// Starts the binary on an API server of which it is given the kubeconfig.
    pub(crate) fn start_on(kubeconfig: &str) -> Self {
        Self::start_on_with(kubeconfig, &[])
    }

    /// Likewise, with more arguments.
    pub(crate) fn start_on_with(kubeconfig: &str, arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kubeconfig");
        std::fs::write(&file, kubeconfig).unwrap();
        let process = command(dir.path()).arg("--kubernetes").arg("--kubeconfig").arg(file).args(arguments).spawn().unwrap();
        Self { process, dir }
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join("manifests").join(name), text).unwrap();
    }

    pub(crate) fn ask(&self, question: &ToControl) -> FromControl {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Connection::connect(&self.dir.path().join("run/control/control.sock")) {
                Ok(mut connection) => {
                    connection.set_receive_timeout(Some(PATIENCE)).unwrap();
                    return connection.call(question).unwrap().0;
                }
                Err(error) if Instant::now() > deadline => panic!("{error}"),
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    pub(crate) fn status(&self) -> ControlStatus {
        let FromControl::Status(status) = self.ask(&ToControl::Status) else { panic!("another answer") };
        status
    }

    pub(crate) fn settle(&self) -> ControlStatus {
        let FromControl::Status(status) = self.ask(&ToControl::Settle { timeout_ms: 10_000 }) else { panic!("another answer") };
        status
    }

    /// Waits for a status that the test describes.
    pub(crate) fn until(&self, what: &str, wanted: impl Fn(&ControlStatus) -> bool) -> ControlStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            if wanted(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "{what}: {status:#?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice-control"));
    command.arg("--run-dir").arg(dir.join("run")).stderr(Stdio::inherit()).stdin(Stdio::null());
    command
}

pub(crate) fn on_manifests(dir: &Path) -> Command {
    let mut command = command(dir);
    command.arg("--manifests").arg(dir.join("manifests"));
    command
}

/// The other end of `dataplane.sock`. The socket's file outlives a connection, as a restarted control process needs.
pub(crate) struct Dataplane {
    listener: Listener,
}

pub(crate) struct Session {
    connection: Connection,
}

impl Dataplane {
    pub(crate) fn start(control: &Control) -> Self {
        let run = control.dir.path().join("run");
        let deadline = Instant::now() + PATIENCE;
        while !run.exists() {
            assert!(Instant::now() < deadline, "no run directory");
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { listener: Listener::bind(&run.join("dataplane.sock")).unwrap() }
    }

    /// Waits for the control process and tells it the endpoints.
    pub(crate) fn accept(&self, endpoints: Vec<LocalEndpoint>, generation: u64) -> Session {
        let mut session = self.accept_silently();
        session.endpoints(endpoints, generation);
        session
    }

    pub(crate) fn accept_silently(&self) -> Session {
        let mut connection = self.listener.accept().unwrap().unwrap();
        connection.set_receive_timeout(Some(PATIENCE)).unwrap();
        let (hello, _) = connection.recv::<ToDataplane>().unwrap().unwrap();
        assert!(matches!(hello, ToDataplane::Control { wire_version: sluice_wire::WIRE_VERSION }), "{hello:?}");
        Session { connection }
    }
}

impl Session {
    pub(crate) fn endpoints(&mut self, endpoints: Vec<LocalEndpoint>, generation: u64) {
        self.connection.send(&FromDataplane::Endpoints { endpoints, generation }, None).unwrap();
    }

    /// The next image, validated as the dataplane would.
    pub(crate) fn published(&mut self) -> Table {
        Table::from_bytes(&self.published_image()).unwrap()
    }

    pub(crate) fn publish_within(&mut self, patience: Duration) -> Table {
        self.connection.set_receive_timeout(Some(patience)).unwrap();
        let table = self.publish_and_adopt();
        self.connection.set_receive_timeout(Some(PATIENCE)).unwrap();
        table
    }

    pub(crate) fn published_image(&mut self) -> Vec<u8> {
        let (message, fd) = self.connection.recv::<ToDataplane>().unwrap().unwrap();
        let ToDataplane::Publish { generation, image_bytes } = message else { panic!("{message:?}") };
        let image = read_sealed(fd.expect("a memfd").as_fd()).expect("sealed whole");
        assert_eq!(image.len() as u64, image_bytes);
        assert_eq!(Table::from_bytes(&image).unwrap().generation(), generation);
        image
    }

    pub(crate) fn adopted(&mut self, generation: u64) {
        self.connection.send(&FromDataplane::Adopted { generation, adopt_us: 5, connections_cut: 0 }, None).unwrap();
    }

    pub(crate) fn refused(&mut self, generation: u64, reason: String) {
        self.connection.send(&FromDataplane::Refused { generation, reason }, None).unwrap();
    }

    pub(crate) fn publish_and_adopt(&mut self) -> Table {
        let table = self.published();
        self.adopted(table.generation());
        table
    }

    pub(crate) fn stays_silent(&mut self, how_long: Duration) {
        self.connection.set_receive_timeout(Some(how_long)).unwrap();
        assert!(self.connection.recv::<ToDataplane>().is_err(), "something was published");
        self.connection.set_receive_timeout(Some(PATIENCE)).unwrap();
    }
}

pub(crate) fn endpoint(port: u16, pod: &str, address: &str) -> LocalEndpoint {
    LocalEndpoint {
        port: PortIndex(port),
        incarnation: Incarnation(1),
        pod: ObjectName::parse(pod),
        uid: String::new(),
        addresses: vec![address.parse().unwrap()],
    }
}

pub(crate) fn web() -> Vec<LocalEndpoint> {
    vec![endpoint(0, "x/web", "10.0.0.1")]
}

/// May the client reach the web pod's port?
pub(crate) fn allows(table: &Table, dport: u16) -> bool {
    table.lookup(PortIndex(0), Direction::Ingress, Addr::v4([10, 0, 0, 2]), Protocol::TCP, dport).is_allow()
}
