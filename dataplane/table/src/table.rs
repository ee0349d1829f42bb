//! Validation once, lookup ever after.

use crate::format::{
    ALIGNMENT, EndpointEntry, FORMAT_VERSION, Header, ImageError, LEAF, MAGIC, NOT_ISOLATED, PORT_CLASS_ENTRIES, Section, V6Slot, checksum,
    v6_slot,
};
use crate::names::{Names, RuleName};
use bytemuck::Pod;
use sluice_flow::limits::PORTS_MAX;
use sluice_flow::{Addr, Direction, Incarnation, PortIndex, Protocol, RuleId, Verdict};

/// A validated table in memory of its own: reading the image touches every page and cache line once, so the first
/// lookups after a swap do not fault, and nobody else can change what was validated.
#[derive(Debug)]
pub struct Table {
    generation: u64,
    image_bytes: u64,
    pub(crate) classes: usize,
    pub(crate) port_classes: usize,
    pub(crate) v4_l1: Box<[u32]>,
    pub(crate) v4_l2: Box<[u32]>,
    pub(crate) v4_l3: Box<[u16]>,
    pub(crate) v6_exact: Box<[V6Slot]>,
    pub(crate) v6_starts: Box<[u128]>,
    pub(crate) v6_classes: Box<[u16]>,
    pub(crate) port_class: Box<[u16]>,
    pub(crate) endpoints: Box<[EndpointEntry]>,
    pub(crate) row_of_class: Box<[u16]>,
    pub(crate) actions: Box<[u32]>,
    pub(crate) services: Box<[u128]>,
    names: Names,
}

impl Table {
    /// Reads and validates an image.
    ///
    /// # Errors
    /// Any damage, another version, or an index that points outside its section. Nothing is half accepted.
    pub fn from_bytes(image: &[u8]) -> Result<Self, ImageError> {
        let header: Header = match image.get(..size_of::<Header>()) {
            Some(bytes) if bytes[..8] == MAGIC => bytemuck::pod_read_unaligned(bytes),
            _ => return Err(ImageError::Magic),
        };
        if header.format != FORMAT_VERSION || header.header_bytes as usize != size_of::<Header>() {
            return Err(ImageError::Version { expected: FORMAT_VERSION, found: header.format });
        }
        if header.image_bytes != image.len() as u64 {
            return Err(ImageError::Length { expected: header.image_bytes, found: image.len() as u64 });
        }
        let found = checksum(image);
        if found != header.checksum {
            return Err(ImageError::Checksum { expected: header.checksum, found });
        }
        let reader = Reader { image, header: &header };
        let to_numbers = |bytes: Vec<[u8; 16]>| bytes.into_iter().map(u128::from_be_bytes).collect();
        let table = Self {
            generation: header.generation,
            image_bytes: header.image_bytes,
            classes: header.classes as usize,
            port_classes: header.port_classes as usize,
            v4_l1: reader.section(Section::V4L1)?.into(),
            v4_l2: reader.section(Section::V4L2)?.into(),
            v4_l3: reader.section(Section::V4L3)?.into(),
            v6_exact: reader.section(Section::V6Exact)?.into(),
            v6_starts: to_numbers(reader.section(Section::V6Starts)?),
            v6_classes: reader.section(Section::V6Classes)?.into(),
            port_class: reader.section(Section::PortClasses)?.into(),
            endpoints: reader.section(Section::Endpoints)?.into(),
            row_of_class: reader.section(Section::RowOfClass)?.into(),
            actions: reader.section(Section::Actions)?.into(),
            services: to_numbers(reader.section(Section::Services)?),
            names: serde_json::from_slice(&reader.section::<u8>(Section::Names)?)
                .map_err(|error| ImageError::Names { reason: error.to_string() })?,
        };
        table.validate()?;
        Ok(table)
    }

    fn validate(&self) -> Result<(), ImageError> {
        let sized = |ok: bool, section: Section| if ok { Ok(()) } else { Err(ImageError::Section { section: section.name() }) };
        sized(self.v4_l1.len() == 65536, Section::V4L1)?;
        sized(self.v4_l2.len().is_multiple_of(256), Section::V4L2)?;
        sized(self.v4_l3.len().is_multiple_of(256), Section::V4L3)?;
        sized(self.v6_exact.len().is_power_of_two(), Section::V6Exact)?;
        // a search must meet an empty slot
        sized(self.v6_exact.iter().any(|slot| slot.class_plus_one == 0), Section::V6Exact)?;
        sized(self.v6_starts.first() == Some(&0), Section::V6Starts)?;
        sized(self.v6_starts.len() == self.v6_classes.len(), Section::V6Classes)?;
        sized(self.port_class.len() == PORT_CLASS_ENTRIES, Section::PortClasses)?;
        sized(self.endpoints.len() <= PORTS_MAX, Section::Endpoints)?;
        sized(self.port_classes > 0 && self.actions.len().is_multiple_of(self.port_classes), Section::Actions)?;
        sorted(&self.v6_starts, Section::V6Starts)?;
        sorted(&self.services, Section::Services)?;

        let classes = self.classes as u64;
        let blocks = |entries: &[u32], next_len: usize, section| {
            entries.iter().try_for_each(|&entry| {
                if entry & LEAF != 0 {
                    below(u64::from(entry & !LEAF), classes, section)
                } else {
                    below(u64::from(entry), next_len as u64 / 256, section)
                }
            })
        };
        blocks(&self.v4_l1, self.v4_l2.len(), Section::V4L1)?;
        blocks(&self.v4_l2, self.v4_l3.len(), Section::V4L2)?;
        let class_entries = |entries: &[u16], section| entries.iter().try_for_each(|&class| below(u64::from(class), classes, section));
        class_entries(&self.v4_l3, Section::V4L3)?;
        class_entries(&self.v6_classes, Section::V6Classes)?;
        let in_use = self.v6_exact.iter().filter(|slot| slot.class_plus_one != 0);
        in_use.clone().try_for_each(|slot| below(u64::from(slot.class_plus_one - 1), classes, Section::V6Exact))?;
        self.port_class.iter().try_for_each(|&class| below(u64::from(class), self.port_classes as u64, Section::PortClasses))?;

        for entry in &self.endpoints {
            for rows in entry.rows.into_iter().filter(|&rows| rows != NOT_ISOLATED) {
                below(u64::from(rows) + classes, self.row_of_class.len() as u64 + 1, Section::Endpoints)?;
            }
        }
        if let Some(ghost) = self.names.endpoints.iter().find(|name| self.endpoint(name.port) != Some(name.incarnation)) {
            return Err(ImageError::Names { reason: format!("{} has no row at port {}", ghost.pod, ghost.port.0) });
        }
        let rows = (self.actions.len() / self.port_classes) as u64;
        self.row_of_class.iter().try_for_each(|&row| below(u64::from(row), rows, Section::RowOfClass))?;
        let actions = self.names.rules.len() as u64 + 1;
        self.actions.iter().try_for_each(|&action| below(u64::from(action), actions, Section::Actions))
    }

    /// The generation in the header.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Size of the image it was read from.
    pub fn image_bytes(&self) -> u64 {
        self.image_bytes
    }

    /// The incarnation that stands on a port, `None` where the table knows no endpoint.
    #[inline]
    pub fn endpoint(&self, port: PortIndex) -> Option<Incarnation> {
        let entry = self.endpoints.get(usize::from(port.0))?;
        (entry.present != 0).then_some(Incarnation(entry.incarnation))
    }

    /// Whether a policy isolates the endpoint in this direction. An unknown endpoint counts as isolated.
    #[inline]
    pub fn isolated(&self, port: PortIndex, direction: Direction) -> bool {
        match self.endpoints.get(usize::from(port.0)) {
            Some(entry) if entry.present != 0 => entry.rows[direction as usize] != NOT_ISOLATED,
            _ => true,
        }
    }

    /// Decides one packet in one direction. Reads the table; touches nothing else.
    ///
    /// A pod that no policy selects is *not isolated* and allows everything; an isolated pod allows only what some rule
    /// allows. Source: Kubernetes, "The two sorts of pod isolation". An unknown endpoint is denied.
    ///
    /// Cost: about five dependent loads, whatever the number of policies; no allocation.
    /// Panics: never; `Table::from_bytes` bounded every index.
    #[inline]
    pub fn lookup(&self, port: PortIndex, direction: Direction, remote: Addr, protocol: Protocol, dport: u16) -> Verdict {
        let Some(entry) = self.endpoints.get(usize::from(port.0)).filter(|entry| entry.present != 0) else {
            return Verdict::Deny;
        };
        let rows = entry.rows[direction as usize];
        if rows == NOT_ISOLATED {
            return Verdict::NotIsolated;
        }
        let class = self.class_of(remote);
        let row = usize::from(self.row_of_class[rows as usize + class]);
        match self.actions[row * self.port_classes + self.port_class_of(protocol, dport)] {
            0 => Verdict::Deny,
            action => Verdict::Allow(RuleId(action - 1)),
        }
    }

    /// The class of a remote address.
    #[inline]
    pub fn class_of(&self, address: Addr) -> usize {
        match address.to_v4() {
            Some(v4) => self.v4_class(v4),
            None => self.v6_class(address.to_u128()),
        }
    }

    #[inline]
    pub(crate) fn v4_class(&self, v4: u32) -> usize {
        let l1 = self.v4_l1[(v4 >> 16) as usize];
        if l1 & LEAF != 0 {
            return (l1 & !LEAF) as usize;
        }
        let l2 = self.v4_l2[l1 as usize * 256 + (v4 >> 8 & 0xff) as usize];
        if l2 & LEAF != 0 {
            return (l2 & !LEAF) as usize;
        }
        usize::from(self.v4_l3[l2 as usize * 256 + (v4 & 0xff) as usize])
    }

    /// The class of an IPv6 address as a number in host order.
    #[inline]
    pub fn v6_class(&self, v6: u128) -> usize {
        self.v6_single(v6).unwrap_or_else(|| {
            // the first start is 0, so at least one is not above
            let interval = self.v6_starts.partition_point(|&start| start <= v6) - 1;
            usize::from(self.v6_classes[interval])
        })
    }

    /// Its class if it is among the single addresses.
    #[inline]
    pub fn v6_single(&self, v6: u128) -> Option<usize> {
        let slots = self.v6_exact.len();
        let bytes = v6.to_be_bytes();
        let mut at = v6_slot(v6, slots);
        while self.v6_exact[at].class_plus_one != 0 {
            if self.v6_exact[at].address == bytes {
                return Some((self.v6_exact[at].class_plus_one - 1) as usize);
            }
            at = (at + 1) & (slots - 1);
        }
        None
    }

    #[inline]
    pub(crate) fn port_class_of(&self, protocol: Protocol, dport: u16) -> usize {
        let at = match protocol {
            Protocol::TCP => usize::from(dport),
            Protocol::UDP => 65536 + usize::from(dport),
            Protocol::SCTP => 2 * 65536 + usize::from(dport),
            _ => PORT_CLASS_ENTRIES - 1,
        };
        usize::from(self.port_class[at])
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

struct Reader<'a> {
    image: &'a [u8],
    header: &'a Header,
}

impl Reader<'_> {
    fn section<T: Pod>(&self, section: Section) -> Result<Vec<T>, ImageError> {
        let refused = ImageError::Section { section: section.name() };
        let [offset, len] = self.header.sections[section as usize];
        let (Ok(offset), Ok(len)) = (usize::try_from(offset), usize::try_from(len)) else { return Err(refused) };
        let bytes = offset.checked_add(len).and_then(|end| self.image.get(offset..end));
        match bytes {
            Some(bytes) if offset.is_multiple_of(ALIGNMENT) && len.is_multiple_of(size_of::<T>()) => {
                Ok(bytemuck::pod_collect_to_vec(bytes))
            }
            _ => Err(refused),
        }
    }
}

fn below(index: u64, len: u64, section: Section) -> Result<(), ImageError> {
    if index < len { Ok(()) } else { Err(ImageError::Index { section: section.name(), index, len }) }
}

fn sorted(values: &[u128], section: Section) -> Result<(), ImageError> {
    if values.is_sorted_by(|a, b| a < b) { Ok(()) } else { Err(ImageError::Order { section: section.name() }) }
}
