//! The other end of the control process's link: takes every table, as a dataplane without a fault would.

use anyhow::{Context, Result, bail};
use sluice_flow::LocalEndpoint;
use sluice_table::seal::read_sealed;
use sluice_wire::{Connection, FromDataplane, Listener, ToDataplane};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;

/// A published image.
#[derive(Debug, Clone, Default)]
pub(super) struct Published {
    /// 0 before the first.
    pub(super) generation: u64,
    pub(super) image: Arc<[u8]>,
    /// How many there were.
    pub(super) count: u64,
}

/// See the module.
pub(super) struct Dataplane {
    connection: Connection,
    published: watch::Receiver<Published>,
}

impl Dataplane {
    /// Listens; [`Dataplane::accept`] waits for the control process.
    pub(super) fn listen(run_dir: &Path) -> Result<Listener> {
        Ok(Listener::bind(&run_dir.join(sluice_wire::DATAPLANE_SOCKET))?)
    }

    /// Blocks until the control process comes, and adopts what it publishes from then on.
    pub(super) fn accept(listener: &Listener) -> Result<Self> {
        let mut incoming = listener.accept()?.context("nobody came")?;
        let (hello, _) = incoming.recv::<ToDataplane>()?.context("it hung up")?;
        if !matches!(hello, ToDataplane::Control { .. }) {
            bail!("it began with {hello:?}");
        }
        let (sender, published) = watch::channel(Published::default());
        let connection = incoming.try_clone()?;
        // ends with the connection
        std::thread::Builder::new().name("dataplane".into()).spawn(move || adopt_all(incoming, &sender))?;
        Ok(Self { connection, published })
    }

    /// Reports the attached pods.
    pub(super) fn report(&self, endpoints: Vec<LocalEndpoint>) -> Result<()> {
        let generation = self.published.borrow().generation;
        Ok(self.connection.send(&FromDataplane::Endpoints { endpoints, generation }, None)?)
    }

    /// What was published last; fails when the control process is gone.
    pub(super) fn published(&mut self) -> &mut watch::Receiver<Published> {
        &mut self.published
    }
}

impl Drop for Dataplane {
    fn drop(&mut self) {
        self.connection.shutdown();
    }
}

fn adopt_all(mut connection: Connection, published: &watch::Sender<Published>) {
    while let Ok(Some((ToDataplane::Publish { generation, .. }, Some(fd)))) = connection.recv::<ToDataplane>() {
        let image = read_sealed(fd.as_fd()).expect("published images are sealed");
        published.send_modify(|last| *last = Published { generation, image: image.to_vec().into(), count: last.count + 1 });
        if connection.send(&FromDataplane::Adopted { generation, adopt_us: 1, connections_cut: 0 }, None).is_err() {
            return;
        }
    }
}
