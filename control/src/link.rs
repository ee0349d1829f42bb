//! The connection to the dataplane, held by a thread of its own: whatever arrives becomes an event, whatever breaks is
//! tried again.
//!
//! The thread only receives. Publishing goes through a second handle of the same socket, which the engine owns for as
//! long as the connection lives.

use crate::engine::Event;
use sluice_flow::LocalEndpoint;
use sluice_table::seal::Sealer;
use sluice_wire::{Connection, FoundDevice, FromDataplane, ToDataplane, WIRE_VERSION, WireError};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;

const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// How often a quiet connection looks whether the engine still listens.
const IDLE: Duration = Duration::from_secs(1);
/// A dataplane that takes no message for so long is treated as gone.
const SEND_MAX: Duration = Duration::from_secs(2);

/// What the dataplane said, or that it is there or gone.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// Connected; `Endpoints` follows.
    Connected(Publisher),
    /// The pods attached to this node, whole.
    Endpoints { endpoints: Vec<LocalEndpoint>, generation: u64 },
    /// In force at every live worker.
    Adopted { generation: u64, adopt_us: u64, connections_cut: u64 },
    /// Not taken.
    Refused { generation: u64, reason: String },
    /// Gone.
    Lost { reason: String },
}

/// Sends images over the live connection.
#[derive(Debug)]
pub(crate) struct Publisher {
    connection: Connection,
    sealer: Sealer,
}

impl Publisher {
    /// On a live connection.
    pub(crate) fn new(connection: Connection) -> Self {
        Self { connection, sealer: Sealer::new("sluice-table") }
    }

    /// Seals the image and passes it. On failure the connection is shut down, so that the receiving thread reports it
    /// lost and connects again.
    pub(crate) fn publish(&mut self, generation: u64, image: &[u8]) -> Result<(), WireError> {
        let fd = self.sealer.seal(image).map_err(WireError::Io)?;
        let message = ToDataplane::Publish { generation, image_bytes: image.len() as u64 };
        self.connection.send(&message, Some(fd.as_fd())).inspect_err(|_| self.connection.shutdown())?;
        self.sealer.prepare(image.len());
        Ok(())
    }
}

impl Drop for Publisher {
    /// Wakes the receiving thread when the engine ends.
    fn drop(&mut self) {
        self.connection.shutdown();
    }
}

/// Starts the thread; it ends with the receiver of `events`. `unidentified` takes the devices that wait for an identity.
pub(crate) fn start(socket: PathBuf, events: UnboundedSender<Event>, unidentified: Sender<Vec<FoundDevice>>) -> io::Result<()> {
    std::thread::Builder::new().name("link".into()).spawn(move || run(&socket, &events, &unidentified)).map(|_| ())
}

fn run(socket: &Path, events: &UnboundedSender<Event>, unidentified: &Sender<Vec<FoundDevice>>) {
    let mut backoff = BACKOFF_MIN;
    let mut denied = false;
    while !events.is_closed() {
        match connect(socket) {
            Err(WireError::Connect { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
                if !std::mem::replace(&mut denied, true) {
                    let socket = socket.display();
                    tracing::warn!(%socket, "this user may not open the dataplane's socket: name it with sluice-dataplane --control-user");
                }
            }
            Err(error) => tracing::debug!(%error, "no dataplane"),
            Ok(connection) => {
                denied = false;
                let reason = serve(connection, events, unidentified, &mut backoff);
                let _ = events.send(Event::Link(LinkEvent::Lost { reason }));
            }
        }
        std::thread::sleep(backoff);
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

fn connect(socket: &Path) -> Result<Connection, WireError> {
    let connection = Connection::connect(socket)?;
    connection.set_receive_timeout(Some(IDLE))?;
    connection.set_send_timeout(Some(SEND_MAX))?;
    connection.send(&ToDataplane::Control { wire_version: WIRE_VERSION }, None)?;
    Ok(connection)
}

/// Turns messages into events until the connection ends; returns why it did.
fn serve(
    mut connection: Connection,
    events: &UnboundedSender<Event>,
    unidentified: &Sender<Vec<FoundDevice>>,
    backoff: &mut Duration,
) -> String {
    let publisher = match connection.try_clone() {
        Ok(connection) => Publisher::new(connection),
        Err(error) => return error.to_string(),
    };
    let mut sent = events.send(Event::Link(LinkEvent::Connected(publisher)));
    while sent.is_ok() {
        let event = match connection.recv() {
            Ok(Some((FromDataplane::Endpoints { endpoints, generation }, _))) => {
                // Only an answer proves that the other side is well; one that accepts and hangs up is not hammered.
                *backoff = BACKOFF_MIN;
                LinkEvent::Endpoints { endpoints, generation }
            }
            Ok(Some((FromDataplane::Adopted { generation, adopt_us, connections_cut }, _))) => {
                LinkEvent::Adopted { generation, adopt_us, connections_cut }
            }
            Ok(Some((FromDataplane::Refused { generation, reason }, _))) => LinkEvent::Refused { generation, reason },
            Ok(Some((FromDataplane::Unidentified { devices }, _))) => {
                // whoever listens ends with this process
                let _ = unidentified.send(devices);
                continue;
            }
            Ok(Some((FromDataplane::Failed { reason }, _))) => return format!("refused by the dataplane: {reason}"),
            Ok(Some((other, _))) => {
                tracing::warn!(message = ?other, "the dataplane said what only others ask for");
                continue;
            }
            Ok(None) => continue,
            Err(WireError::Io(error)) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                if events.is_closed() {
                    return "the engine ended".to_owned();
                }
                continue;
            }
            Err(error) => return error.to_string(),
        };
        sent = events.send(Event::Link(event));
    }
    "the engine ended".to_owned()
}
