//! Accepting connections, and outages: nobody is accepted, everybody is cut off, the address stays ours.

use crate::api::{Shared, serve};
use crate::http::connection::Connection;
use crate::tls::Tls;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

const BACKLOG: u32 = 1024;
/// A client has this long for its TLS handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// After a failed accept, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What every connection is served with.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) shared: Arc<Shared>,
    pub(crate) tls: Option<Arc<Tls>>,
    /// Counts up to cut off all connections.
    pub(crate) cut: watch::Sender<u64>,
}

/// Binds an address without listening, which keeps it and refuses connections.
pub(crate) fn reserve(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Accepts connections until the task is aborted, which cuts off all of them.
pub(crate) fn accept(socket: TcpSocket, service: Service) -> io::Result<(SocketAddr, JoinHandle<()>)> {
    let listener = socket.listen(BACKLOG)?;
    let address = listener.local_addr()?;
    Ok((address, tokio::spawn(accept_all(listener, service))))
}

async fn accept_all(listener: TcpListener, service: Service) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve_stream(stream, service.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve_stream(stream: TcpStream, service: Service) {
    let mut cut = service.cut.subscribe();
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    tokio::select! {
        () = handshake_and_serve(stream, &service) => {}
        _ = cut.changed() => {}
    }
}

async fn handshake_and_serve(stream: TcpStream, service: &Service) {
    let connection = match &service.tls {
        None => Connection::new(Box::new(stream)),
        Some(tls) => match tokio::time::timeout(HANDSHAKE_MAX, tls.acceptor.accept(stream)).await {
            Ok(Ok(stream)) => Connection::new(Box::new(stream)),
            Ok(Err(error)) => return tracing::info!(%error, "TLS handshake failed"),
            Err(_) => return tracing::info!("TLS handshake timed out"),
        },
    };
    serve(&service.shared, connection).await;
}
