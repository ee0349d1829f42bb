//! Numbered datagrams in many flows at a steady rate.

use super::gauge::Stop;
use super::{Gauge, now_ns, wildcard};
use anyhow::{Context, Result, ensure};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use sluice_flow::Family;
use sluice_lab::Lab;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Flow, number, time of sending.
const BODY_BYTES: usize = 20;
/// Room for more than a second at 50 kpps (a datagram takes 768 bytes of it), so that loss is the path's and not the socket's.
const RECEIVE_BUFFER_BYTES: usize = 64 << 20;
const OPENED_AT_ONCE: usize = 64;
const LOST_SHOWN: usize = 20;
/// A sender that was not scheduled catches up by at most so many at once.
const BURST_MAX: u64 = 256;
/// A packet that has not arrived after so long a silence never will.
const SILENCE_MAX: Duration = Duration::from_secs(1);

/// What to send.
#[derive(Debug, Clone, Copy)]
pub struct UdpPlan {
    /// The receiver's port.
    pub port: u16,
    /// Flows: as many source ports.
    pub flows: usize,
    /// Of all flows together.
    pub packets_per_second: u64,
    /// One in so many is answered by the receiver; 0: none.
    pub answer_every: u64,
}

/// Datagrams on their way.
#[derive(Debug)]
pub struct UdpFlows {
    /// What arrives, of all flows together.
    pub gauge: Arc<Gauge>,
    sent: Arc<AtomicU64>,
    sending: Stop,
    receiving: Stop,
    sender: JoinHandle<Sent>,
    receiver: JoinHandle<Received>,
}

struct Sent {
    sockets: Vec<UdpSocket>,
    numbers: Vec<u64>,
    refused: u64,
}

struct Received {
    seen: Vec<Numbers>,
    foreign: u64,
    answered: u64,
    latency_max: Duration,
    kernel_drops: u64,
}

/// What became of every datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpReport {
    /// Handed to the kernel.
    pub sent: u64,
    /// `send` failed.
    pub refused: u64,
    /// Arrived once.
    pub received: u64,
    /// Never arrived.
    pub lost: u64,
    /// Flows that lost one.
    pub flows_with_loss: u64,
    /// Flow and number of some of the lost, in order.
    pub first_lost: Vec<(usize, u64)>,
    /// Arrived again.
    pub duplicates: u64,
    /// Arrived after a later number of its flow.
    pub reordered: u64,
    /// Were not ours.
    pub foreign: u64,
    /// Dropped by the receiving socket.
    pub socket_drops: u64,
    /// Answers sent by the receiver.
    pub answered: u64,
    /// Of them, those that came back.
    pub answers_received: u64,
    /// The longest way of one datagram.
    pub latency_max: Duration,
    /// The longest time in which nothing arrived.
    pub longest_silence: Duration,
}

impl UdpReport {
    /// Every datagram arrived exactly once, every answer came back, and nothing else was seen.
    ///
    /// # Panics
    /// Otherwise, with the report.
    pub fn assert_whole(&self) {
        assert!(self.sent > 0 && self.foreign == 0 && self.refused == 0, "{self:#?}");
        assert_eq!((self.lost, self.duplicates, self.socket_drops), (0, 0, 0), "{self:#?}");
        assert_eq!(self.answered, self.answers_received, "answers were lost: {self:#?}");
    }
}

impl UdpFlows {
    /// Opens every flow from one pod to another, and begins to send.
    ///
    /// # Errors
    /// A socket could not be made; a flow cannot be opened.
    pub fn start(lab: &Lab, from: &str, to: &str, family: Family, plan: UdpPlan) -> Result<Self> {
        let address = SocketAddr::new(lab.pod_address(to, family)?, plan.port);
        let listener = lab.in_pod(to, || listener(address.ip(), plan.port))?;
        let sockets = lab.in_pod(from, || (0..plan.flows).map(|_| connected(address)).collect::<Result<Vec<_>>>())?;
        open_flows(&listener, &sockets).with_context(|| format!("{from} to {address}"))?;
        let gauge = Arc::<Gauge>::default();
        let (sent, sending, receiving) = (Arc::<AtomicU64>::default(), Stop::default(), Stop::default());
        let sender = {
            let (sent, stop) = (sent.clone(), sending.flag());
            std::thread::spawn(move || send(sockets, plan, &sent, &stop))
        };
        let receiver = {
            let (gauge, stop, netns) = (gauge.clone(), receiving.flag(), lab.pod_netns(to));
            std::thread::spawn(move || {
                let mut received = receive(&listener, plan, &gauge, &stop);
                received.kernel_drops = netns.run(|| socket_drops(plan.port)).unwrap_or(u64::MAX);
                received
            })
        };
        Ok(Self { gauge, sent, sending, receiving, sender, receiver })
    }

    /// How many were sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Stops sending, waits for what is on its way, and accounts for every datagram.
    ///
    /// # Errors
    /// A thread panicked.
    pub fn finish(self) -> Result<UdpReport> {
        self.sending.now();
        let sent = self.sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))?;
        wait_for_the_rest(&self.gauge, sent.numbers.iter().sum());
        self.receiving.now();
        let received = self.receiver.join().map_err(|_| anyhow::anyhow!("the receiver panicked"))?;
        let total: u64 = sent.numbers.iter().sum();
        let unique: u64 = received.seen.iter().map(|numbers| numbers.count).sum();
        let short = |(sent, seen): (&u64, &Numbers)| *sent != seen.count;
        ensure!(unique <= total, "{unique} received of {total} sent");
        Ok(UdpReport {
            sent: total,
            refused: sent.refused,
            received: unique,
            lost: total - unique,
            flows_with_loss: sent.numbers.iter().zip(&received.seen).filter(|pair| short(*pair)).count() as u64,
            first_lost: lost(&sent.numbers, &received.seen).take(LOST_SHOWN).collect(),
            duplicates: received.seen.iter().map(|numbers| numbers.duplicates).sum(),
            reordered: received.seen.iter().map(|numbers| numbers.reordered).sum(),
            foreign: received.foreign,
            socket_drops: received.kernel_drops,
            answered: received.answered,
            answers_received: sent.sockets.iter().map(answers).sum(),
            latency_max: received.latency_max,
            longest_silence: self.gauge.longest_silence(),
        })
    }
}

/// Flow and number of each that was sent and not seen.
fn lost<'a>(sent: &'a [u64], seen: &'a [Numbers]) -> impl Iterator<Item = (usize, u64)> + 'a {
    let of_flow = |(flow, (sent, seen)): (usize, (&'a u64, &'a Numbers))| {
        (0..*sent).filter(|number| !seen.contains(*number)).map(move |number| (flow, number))
    };
    sent.iter().zip(seen).enumerate().flat_map(of_flow)
}

/// Until all have arrived or nothing more comes: a busy machine may hold packets back for long.
fn wait_for_the_rest(gauge: &Gauge, sent: u64) {
    let mut last = (gauge.arrived(), Instant::now());
    while last.0 < sent && last.1.elapsed() < SILENCE_MAX {
        std::thread::sleep(Duration::from_millis(10));
        let arrived = gauge.arrived();
        if arrived != last.0 {
            last = (arrived, Instant::now());
        }
    }
    // and the answers to the last of them
    std::thread::sleep(Duration::from_millis(100));
}

fn listener(address: IpAddr, port: u16) -> Result<UdpSocket> {
    let socket = UdpSocket::bind((wildcard(address), port)).with_context(|| format!("bind port {port}"))?;
    set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER_BYTES).context("receive buffer")?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    Ok(socket)
}

/// One datagram of every flow there and back before the traffic begins. So each is an established flow of which nothing may
/// be lost; a thousand first packets at once would wait for a worker, of which only so many can wait, as for a neighbour that
/// is not known yet.
fn open_flows(listener: &UdpSocket, sockets: &[UdpSocket]) -> Result<()> {
    let mut buffer = [0; 8];
    listener.set_nonblocking(true)?;
    for few in sockets.chunks(OPENED_AT_ONCE) {
        let mut waiting: Vec<&UdpSocket> = few.iter().collect();
        let begin = Instant::now();
        while !waiting.is_empty() {
            ensure!(begin.elapsed() < Duration::from_secs(5), "{} of {} flows get no answer", waiting.len(), few.len());
            for socket in &waiting {
                socket.send(b"open").context("send")?;
            }
            for _ in 0..20 {
                std::thread::sleep(Duration::from_millis(1));
                while let Ok((bytes, from)) = listener.recv_from(&mut buffer) {
                    listener.send_to(&buffer[..bytes], from)?;
                }
                waiting.retain(|socket| socket.recv(&mut buffer).is_err());
                if waiting.is_empty() {
                    break;
                }
            }
        }
    }
    // repeats of what was slow
    std::thread::sleep(Duration::from_millis(50));
    while listener.recv_from(&mut buffer).is_ok() {}
    sockets.iter().for_each(|socket| while socket.recv(&mut buffer).is_ok() {});
    Ok(listener.set_nonblocking(false)?)
}

fn connected(address: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind((wildcard(address.ip()), 0))?;
    socket.connect(address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// In turn over the flows, as many as the time that has passed asks for.
fn send(sockets: Vec<UdpSocket>, plan: UdpPlan, sent: &AtomicU64, stop: &AtomicBool) -> Sent {
    let mut numbers = vec![0u64; sockets.len()];
    let (mut total, mut due_base, mut refused) = (0u64, 0u64, 0u64);
    let begin = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let due = (begin.elapsed().as_nanos() * u128::from(plan.packets_per_second) / 1_000_000_000) as u64;
        // what was missed while not scheduled is not made up for
        due_base = due_base.max(due.saturating_sub(BURST_MAX + total));
        while total + due_base < due {
            let flow = (total % sockets.len() as u64) as usize;
            let mut body = [0; BODY_BYTES];
            body[..4].copy_from_slice(&(flow as u32).to_le_bytes());
            body[4..12].copy_from_slice(&numbers[flow].to_le_bytes());
            body[12..].copy_from_slice(&now_ns().to_le_bytes());
            match sockets[flow].send(&body) {
                Ok(_) => numbers[flow] += 1,
                Err(_) => refused += 1,
            }
            total += 1;
        }
        sent.store(total - refused, Ordering::Relaxed);
        std::thread::sleep(Duration::from_micros(300));
    }
    Sent { sockets, numbers, refused }
}

fn receive(listener: &UdpSocket, plan: UdpPlan, gauge: &Gauge, stop: &AtomicBool) -> Received {
    let mut seen: Vec<Numbers> = (0..plan.flows).map(|_| Numbers::default()).collect();
    let (mut foreign, mut answered, mut latency_max) = (0, 0, 0);
    let mut buffer = [0; 2048];
    loop {
        let (bytes, from) = match listener.recv_from(&mut buffer) {
            Ok(received) => received,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                // what is queued is taken before the end is looked for
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                continue;
            }
            // an ICMP error about an answer
            Err(_) => continue,
        };
        let body = &buffer[..bytes];
        let Some((flow, number, sent_ns)) = read(body).filter(|(flow, ..)| *flow < plan.flows) else {
            foreign += 1;
            continue;
        };
        gauge.note(1);
        latency_max = latency_max.max(now_ns().saturating_sub(sent_ns));
        seen[flow].note(number);
        if plan.answer_every != 0 && number % plan.answer_every == 0 && listener.send_to(body, from).is_ok() {
            answered += 1;
        }
    }
    Received { seen, foreign, answered, latency_max: Duration::from_nanos(latency_max), kernel_drops: 0 }
}

fn read(body: &[u8]) -> Option<(usize, u64, u64)> {
    let flow = u32::from_le_bytes(*body.first_chunk()?);
    let number = u64::from_le_bytes(*body.get(4..)?.first_chunk()?);
    let sent_ns = u64::from_le_bytes(*body.get(12..)?.first_chunk()?);
    (body.len() == BODY_BYTES).then_some((flow as usize, number, sent_ns))
}

fn answers(socket: &UdpSocket) -> u64 {
    let mut buffer = [0; 2048];
    let mut count = 0;
    while socket.recv(&mut buffer).is_ok() {
        count += 1;
    }
    count
}

/// The drops of the sockets on this port, from the last column of /proc/net/udp and udp6. Run inside the namespace.
fn socket_drops(port: u16) -> Result<u64> {
    let mut drops = 0;
    for file in ["udp", "udp6"] {
        let text = std::fs::read_to_string(format!("/proc/thread-self/net/{file}"))?;
        for line in text.lines().skip(1) {
            let mut fields = line.split_ascii_whitespace();
            if fields.nth(1).is_some_and(|local| local.ends_with(&format!(":{port:04X}"))) {
                drops += fields.last().and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
            }
        }
    }
    Ok(drops)
}

/// The numbers that were seen of one flow.
#[derive(Debug, Default)]
struct Numbers {
    bits: Vec<u64>,
    count: u64,
    duplicates: u64,
    reordered: u64,
    next: u64,
}

impl Numbers {
    fn contains(&self, number: u64) -> bool {
        self.bits.get((number / 64) as usize).is_some_and(|word| word & (1 << (number % 64)) != 0)
    }

    fn note(&mut self, number: u64) {
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if word >= self.bits.len() {
            self.bits.resize(word + 1, 0);
        }
        if self.bits[word] & bit != 0 {
            self.duplicates += 1;
            return;
        }
        self.bits[word] |= bit;
        self.count += 1;
        self.reordered += u64::from(number < self.next);
        self.next = self.next.max(number + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_tell_duplicates_and_reordering_apart() {
        let mut numbers = Numbers::default();
        [0, 1, 3, 2, 3, 200].into_iter().for_each(|number| numbers.note(number));
        assert_eq!((numbers.count, numbers.duplicates, numbers.reordered), (5, 1, 1));
        assert!(numbers.contains(200) && !numbers.contains(199) && !numbers.contains(4096));
    }
}
