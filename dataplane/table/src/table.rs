//! A table: validated once, asked ever after.

use crate::arrays::Arrays;
use crate::batch::{Query, SimdLevel};
use crate::format::{EndpointEntry, ImageError};
use crate::load::load;
use crate::memory::LINE;
use crate::names::{Names, RuleName};
use crate::packed::PackedArrays;
use crate::width::Wide16;
use sluice_flow::{Addr, Direction, Incarnation, PortIndex, Protocol, RuleId, Verdict};
use std::ops::RangeInclusive;
use std::sync::OnceLock;

/// A validated table in memory of its own: reading the image touches every page and cache line once, so the first
/// lookups after a swap do not fault, and nobody else can change what was validated.
#[derive(Debug)]
pub struct Table {
    pub(crate) generation: u64,
    pub(crate) image_bytes: u64,
    pub(crate) cold_bytes: u64,
    pub(crate) classes: usize,
    pub(crate) port_classes: usize,
    /// How batches are looked up.
    pub(crate) level: SimdLevel,
    pub(crate) body: Body,
    pub(crate) services: Box<[u128]>,
    /// See [`Table::port_runs`]; of TCP, UDP and SCTP.
    pub(crate) port_runs: [OnceLock<Box<[u16]>>; 3],
    pub(crate) names: Names,
}

const PORT_PROTOCOLS: [Protocol; 3] = [Protocol::TCP, Protocol::UDP, Protocol::SCTP];

/// The arrays, in the widths that the image has.
#[derive(Debug)]
pub(crate) enum Body {
    Narrow(Arrays<u16, u8>),
    SmallWide(Arrays<u16, Wide16>),
    LargeWide(Arrays<u32, u8>),
    Wide(Arrays<u32, Wide16>),
    PackedNarrow(PackedArrays<u16, u8>),
    PackedSmallWide(PackedArrays<u16, Wide16>),
    PackedLargeWide(PackedArrays<u32, u8>),
    PackedWide(PackedArrays<u32, Wide16>),
}

/// The same code for each width, and for each form of profiles.
macro_rules! with_arrays {
    ($body:expr, $arrays:ident => $code:expr) => {
        $crate::table::with_arrays!($body, $arrays => $code, packed $arrays => $code)
    };
    ($body:expr, $plain:ident => $code:expr, packed $packed:ident => $packed_code:expr) => {
        match $body {
            $crate::table::Body::Narrow($plain) => $code,
            $crate::table::Body::SmallWide($plain) => $code,
            $crate::table::Body::LargeWide($plain) => $code,
            $crate::table::Body::Wide($plain) => $code,
            $crate::table::Body::PackedNarrow($packed) => $packed_code,
            $crate::table::Body::PackedSmallWide($packed) => $packed_code,
            $crate::table::Body::PackedLargeWide($packed) => $packed_code,
            $crate::table::Body::PackedWide($packed) => $packed_code,
        }
    };
}
pub(crate) use with_arrays;

impl Table {
    /// Reads and validates an image.
    ///
    /// # Errors
    /// Any damage, another version, or an index that points outside its section. Nothing is half accepted.
    pub fn from_bytes(image: &[u8]) -> Result<Self, ImageError> {
        load(image)
    }

    /// The generation in the header.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Size of the image it was read from.
    pub fn image_bytes(&self) -> u64 {
        self.image_bytes
    }

    /// Bytes of the image that lookups can touch: all but the names.
    pub fn hot_bytes(&self) -> u64 {
        self.image_bytes - self.cold_bytes
    }

    /// Cache lines that lookups read.
    pub fn lines(&self) -> usize {
        with_arrays!(&self.body, arrays => arrays.whole.len() / LINE)
    }

    /// Brings at most `count` of them, from `first` on, into this core's caches, so that whoever is about to judge by this
    /// table can do so in slices, and its first lookups do not wait for what another core has written. Returns where to go
    /// on. Cost: some 3 ns a line.
    pub fn warm(&self, first: usize, count: usize) -> usize {
        let whole = with_arrays!(&self.body, arrays => &*arrays.whole);
        let end = first.saturating_add(count).min(self.lines());
        // read, as nothing obliges a processor to heed a prefetch: the swap bench found no effect of 40,000 in a row
        let sum: u64 = (first..end).map(|line| u64::from(whole[line * LINE])).sum();
        std::hint::black_box(sum);
        end
    }

    #[inline(always)]
    pub(crate) fn entry(&self, port: PortIndex) -> Option<&EndpointEntry> {
        let endpoints = with_arrays!(&self.body, arrays => &arrays.endpoints);
        endpoints.get(usize::from(port.0)).filter(|entry| entry.present != 0)
    }

    /// The incarnation that stands on a port, `None` where the table knows no endpoint.
    #[inline]
    pub fn endpoint(&self, port: PortIndex) -> Option<Incarnation> {
        self.entry(port).map(|entry| Incarnation(entry.incarnation))
    }

    /// Whether a policy isolates the endpoint in this direction. An unknown endpoint counts as isolated.
    #[inline]
    pub fn isolated(&self, port: PortIndex, direction: Direction) -> bool {
        self.entry(port).is_none_or(|entry| entry.halves[direction as usize].is_isolated())
    }

    /// Decides one packet in one direction. Reads the table; touches nothing else.
    ///
    /// A pod that no policy selects is *not isolated* and allows everything; an isolated pod allows only what some rule
    /// allows. Source: Kubernetes, "The two sorts of pod isolation". An unknown endpoint is denied.
    ///
    /// Cost: four dependent loads for most IPv4 addresses, eight at most, two more where profiles are packed, whatever the
    /// number of policies; no allocation. Panics: never; `Table::from_bytes` bounded every index.
    #[inline]
    pub fn lookup(&self, port: PortIndex, direction: Direction, remote: Addr, protocol: Protocol, dport: u16) -> Verdict {
        self.ask(&Query { remote, port, dport, protocol, direction })
    }

    /// The same for a query that is at hand.
    #[inline(always)]
    pub fn ask(&self, query: &Query) -> Verdict {
        match &self.body {
            // in the form that most tables have, here and now: a call would take as long as two of the loads
            Body::Narrow(arrays) => arrays.lookup(query),
            _ => self.ask_wide(query),
        }
    }

    #[inline(never)]
    fn ask_wide(&self, query: &Query) -> Verdict {
        with_arrays!(&self.body, arrays => arrays.lookup(query))
    }

    /// Whether an isolated endpoint allows nothing at all in this direction from or to an address: every protocol and port. Where
    /// profiles are packed, and of an unknown endpoint, nothing is known: false. Cost: that of a lookup, and a load for each
    /// sixteen or so port classes of the endpoint.
    pub fn denies_all(&self, port: PortIndex, direction: Direction, remote: Addr) -> bool {
        let known = self.entry(port).is_some_and(|entry| entry.halves[direction as usize].is_isolated());
        known && with_arrays!(&self.body, arrays => arrays.denies_all(port, direction, remote), packed _packed => false)
    }

    /// The ports in a row around one about which the table says the very same: verdict and rule. Further ones may be, too: no more than
    /// 64 classes either way are looked at. Of a protocol without ports the one alone. Cost: a lookup for each class; the first time for a
    /// protocol, all its ports are walked.
    pub fn ports_alike(&self, port: PortIndex, direction: Direction, remote: Addr, protocol: Protocol, dport: u16) -> RangeInclusive<u16> {
        const CLASSES_MAX: usize = 64;
        let Some(protocols) = PORT_PROTOCOLS.iter().position(|with_ports| *with_ports == protocol) else { return dport..=dport };
        let starts = self.port_runs(protocols);
        let of = |run: usize| self.lookup(port, direction, remote, protocol, starts[run]);
        let own = starts.partition_point(|start| *start <= dport) - 1;
        let verdict = of(own);
        let first = (own.saturating_sub(CLASSES_MAX)..own).rev().take_while(|run| of(*run) == verdict).last().unwrap_or(own);
        let end = starts.len().min(own + 1 + CLASSES_MAX);
        let last = (own + 1..end).take_while(|run| of(*run) == verdict).last().unwrap_or(own);
        starts[first]..=starts.get(last + 1).map_or(u16::MAX, |next| next - 1)
    }

    /// The ports of a protocol at which another class begins than the one before has, the first of them 0. Found when first asked for.
    fn port_runs(&self, protocols: usize) -> &[u16] {
        self.port_runs[protocols].get_or_init(|| {
            with_arrays!(&self.body, arrays => {
                let class = |port: u16| arrays.addresses.port_class_of(PORT_PROTOCOLS[protocols], port);
                (0..=u16::MAX).filter(|port| *port == 0 || class(*port) != class(port - 1)).collect()
            })
        })
    }

    /// The class of a remote address.
    #[inline]
    pub fn class_of(&self, address: Addr) -> usize {
        with_arrays!(&self.body, arrays => arrays.addresses.class_of(address))
    }

    pub(crate) fn port_class_of(&self, protocol: Protocol, dport: u16) -> usize {
        with_arrays!(&self.body, arrays => arrays.addresses.port_class_of(protocol, dport))
    }

    /// Whether the address belongs to a service, so that policy is judged on what it is translated to.
    #[inline]
    pub fn is_service(&self, address: Addr) -> bool {
        !self.services.is_empty() && self.services.binary_search(&address.to_u128()).is_ok()
    }

    /// The rule behind an id of this table.
    pub fn rule(&self, id: RuleId) -> Option<&RuleName> {
        self.names.rules.get(id.0 as usize)
    }

    /// The cold section.
    pub fn names(&self) -> &Names {
        &self.names
    }
}
