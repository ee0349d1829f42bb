//! How a record lies in memory, as its map itself tells, and how to carry it into another layout.
//!
//! Every pinned map carries the types of its keys and values (BTF), written by the compiler of the version that made it. So
//! a build can read what any other one left, older or newer, without knowing its headers: fields are matched by name.
//! `src/c/abi.h` has the rules that keep this right.

use libbpf_rs::btf::types::{Array, Int, IntEncoding, MemberAttr, Struct};
use libbpf_rs::btf::{Btf, BtfKind, BtfType, HasSize, TypeId};

/// Why a record cannot be read or carried over.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Misfit {
    #[error("it carries no type of its records")]
    /// The kernel has no BTF of it.
    Untyped,
    #[error("its records are of type {from:?}, not {to:?}")]
    /// Another map.
    Type {
        /// There.
        from: String,
        /// Here.
        to: String,
    },
    #[error("field {field} is neither a number nor an array of numbers")]
    /// A kind of field that no layout of ours has.
    Kind {
        /// Its name.
        field: String,
    },
    #[error("field {field} has {from} bytes there and {to} here, and only numbers may change their size")]
    /// Addresses and the like.
    Size {
        /// Its name.
        field: String,
        /// There.
        from: usize,
        /// Here.
        to: usize,
    },
    #[error("field {field} does not lie inside its record")]
    /// Type information that contradicts itself.
    Bounds {
        /// Its name.
        field: String,
    },
}

/// Whether a record names its entry or is what stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// What it does not know of a key it must not forget: two entries could become one.
    Key,
    /// What it does not know of a value is dropped.
    Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Unsigned, in the order of this machine.
    Number,
    /// Carried as they are.
    Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Field {
    /// Empty for a map whose record is one number.
    name: String,
    at: usize,
    bytes: usize,
    kind: Kind,
}

impl Field {
    fn is_padding(&self) -> bool {
        self.name.starts_with("pad") || self.name.starts_with("reserved")
    }
}

/// The fields of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Of the struct; empty for a number.
    name: String,
    bytes: usize,
    fields: Vec<Field>,
}

impl Layout {
    /// Of a type: a struct of numbers and arrays, or one number.
    ///
    /// # Errors
    /// [`Misfit`], with the field.
    pub fn of(btf: &Btf<'_>, id: u32) -> Result<Self, Misfit> {
        let of_type = btf.type_by_id::<BtfType<'_>>(TypeId::from(id)).filter(|_| id != 0).ok_or(Misfit::Untyped)?;
        let Ok(record) = Struct::try_from(of_type.skip_mods_and_typedefs()) else {
            let (bytes, kind) = shape(of_type).ok_or_else(|| Misfit::Kind { field: String::new() })?;
            return Ok(Self { name: String::new(), bytes, fields: vec![Field { name: String::new(), at: 0, bytes, kind }] });
        };
        let name = record.name().unwrap_or_default().to_string_lossy().into_owned();
        let mut layout = Self { name, bytes: record.size(), fields: Vec::new() };
        for member in record.iter() {
            let name = member.name.unwrap_or_default().to_string_lossy().into_owned();
            let found = btf.type_by_id::<BtfType<'_>>(member.ty).and_then(shape);
            let (MemberAttr::Normal { offset }, Some((bytes, kind))) = (member.attr, found) else {
                return Err(Misfit::Kind { field: name });
            };
            let at = offset as usize / 8;
            if at.checked_add(bytes).is_none_or(|end| end > layout.bytes) || !offset.is_multiple_of(8) {
                return Err(Misfit::Bounds { field: name });
            }
            layout.fields.push(Field { name, at, bytes, kind });
        }
        Ok(layout)
    }

    /// Length of a record.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where a field begins, and its length.
    pub fn field(&self, name: &str) -> Option<(usize, usize)> {
        self.find(name).map(|field| (field.at, field.bytes))
    }

    /// The fields' names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|field| field.name.as_str())
    }

    fn find(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

/// Length and kind of a field's type.
fn shape(mut found: BtfType<'_>) -> Option<(usize, Kind)> {
    let mut network_order = false;
    while found.is_mod() || found.kind() == BtfKind::Typedef {
        network_order |= found.name().is_some_and(|name| name.to_string_lossy().starts_with("__be"));
        found = found.next_type()?;
    }
    let number = |found: BtfType<'_>| {
        let int = Int::try_from(found.skip_mods_and_typedefs()).ok()?;
        let unsigned = !matches!(int.encoding, IntEncoding::Signed) && matches!(int.bits, 8 | 16 | 32 | 64);
        unsigned.then_some(usize::from(int.bits) / 8)
    };
    match Array::try_from(found) {
        Ok(array) => Some((array.capacity().checked_mul(number(array.contained_type())?)?, Kind::Bytes)),
        Err(found) => Some((number(found)?, if network_order { Kind::Bytes } else { Kind::Number })),
    }
}

/// How to carry records from one layout into another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conversion {
    from_bytes: usize,
    to_bytes: usize,
    moves: Vec<(Field, Field)>,
    /// Of a key: what the other layout does not know.
    unknown: Vec<Field>,
}

impl Conversion {
    /// Matches fields by name.
    ///
    /// # Errors
    /// [`Misfit::Type`] where the structs have different names, [`Misfit::Size`] where a field of both cannot be carried over.
    pub(crate) fn between(from: &Layout, to: &Layout, role: Role) -> Result<Self, Misfit> {
        if from.name != to.name {
            return Err(Misfit::Type { from: from.name.clone(), to: to.name.clone() });
        }
        let mut moves = Vec::new();
        for target in to.fields.iter().filter(|field| !field.is_padding()) {
            let Some(source) = from.find(&target.name) else { continue };
            let numbers = source.kind == Kind::Number && target.kind == Kind::Number;
            if !numbers && source.bytes != target.bytes {
                return Err(Misfit::Size { field: target.name.clone(), from: source.bytes, to: target.bytes });
            }
            moves.push((source.clone(), target.clone()));
        }
        let unknown = |field: &&Field| role == Role::Key && !field.is_padding() && to.find(&field.name).is_none();
        let unknown = from.fields.iter().filter(unknown).cloned().collect();
        Ok(Self { from_bytes: from.bytes, to_bytes: to.bytes, moves, unknown })
    }

    /// Length of a converted record.
    pub(crate) fn to_bytes(&self) -> usize {
        self.to_bytes
    }

    /// Converts a record; fields that were not there are 0. `false`: a number does not fit, and `to` holds nothing of use.
    ///
    /// # Panics
    /// When the lengths are not those of the layouts.
    pub(crate) fn convert(&self, from: &[u8], to: &mut [u8]) -> bool {
        assert_eq!((from.len(), to.len()), (self.from_bytes, self.to_bytes));
        to.fill(0);
        for (source, target) in &self.moves {
            let (source_bytes, target_bytes) = (&from[source.at..][..source.bytes], &mut to[target.at..][..target.bytes]);
            if source.bytes == target.bytes {
                target_bytes.copy_from_slice(source_bytes);
            } else if !write_number(target_bytes, read_number(source_bytes)) {
                return false;
            }
        }
        self.unknown.iter().all(|field| from[field.at..][..field.bytes].iter().all(|byte| *byte == 0))
    }
}

fn read_number(bytes: &[u8]) -> u64 {
    let mut number = [0; 8];
    let at = if cfg!(target_endian = "little") { 0 } else { 8 - bytes.len() };
    number[at..at + bytes.len()].copy_from_slice(bytes);
    u64::from_ne_bytes(number)
}

fn write_number(bytes: &mut [u8], number: u64) -> bool {
    let whole = number.to_ne_bytes();
    let at = if cfg!(target_endian = "little") { 0 } else { 8 - bytes.len() };
    bytes.copy_from_slice(&whole[at..at + bytes.len()]);
    read_number(bytes) == number
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(bytes: usize, fields: &[(&str, usize, usize, Kind)]) -> Layout {
        let field = |&(name, at, bytes, kind): &(&str, usize, usize, Kind)| Field { name: name.into(), at, bytes, kind };
        Layout { name: "record".into(), bytes, fields: fields.iter().map(field).collect() }
    }

    const N: Kind = Kind::Number;
    const B: Kind = Kind::Bytes;

    #[test]
    fn numbers_widen_always_and_narrow_where_they_fit() {
        let (narrow, wide) = (layout(4, &[("a", 0, 2, N), ("b", 2, 2, N)]), layout(12, &[("b", 0, 8, N), ("a", 8, 4, N)]));
        let there = Conversion::between(&narrow, &wide, Role::Value).unwrap();
        let back = Conversion::between(&wide, &narrow, Role::Value).unwrap();
        let record = [&0xfffeu16.to_ne_bytes()[..], &7u16.to_ne_bytes()].concat();
        let (mut widened, mut again) = ([0xee; 12], [0xee; 4]);
        assert!(there.convert(&record, &mut widened));
        assert_eq!(widened[..], [&7u64.to_ne_bytes()[..], &0xfffeu32.to_ne_bytes()].concat());
        assert!(back.convert(&widened, &mut again));
        assert_eq!(again[..], record);
        widened[8..].copy_from_slice(&0x1_0000u32.to_ne_bytes());
        assert!(!back.convert(&widened, &mut again), "one more than fits");
    }

    #[test]
    fn what_is_new_is_zero_and_what_is_unknown_is_dropped_of_values_only() {
        let (old, new) = (layout(4, &[("a", 0, 4, N)]), layout(8, &[("a", 4, 4, N), ("zone", 0, 4, N)]));
        let mut record = [0xee; 8];
        assert!(Conversion::between(&old, &new, Role::Key).unwrap().convert(&5u32.to_ne_bytes(), &mut record));
        assert_eq!(record[..], [&0u32.to_ne_bytes()[..], &5u32.to_ne_bytes()].concat());
        let (as_key, as_value) = (Conversion::between(&new, &old, Role::Key), Conversion::between(&new, &old, Role::Value));
        let mut again = [0xee; 4];
        assert!(as_key.as_ref().unwrap().convert(&record, &mut again) && again == 5u32.to_ne_bytes());
        record[0] = 1;
        assert!(!as_key.unwrap().convert(&record, &mut again), "another zone is another key");
        assert!(as_value.unwrap().convert(&record, &mut again) && again == 5u32.to_ne_bytes());
    }

    #[test]
    fn addresses_keep_their_size_and_padding_is_nothing() {
        let four = layout(8, &[("ip", 0, 4, B), ("pad", 4, 4, B)]);
        let sixteen = layout(18, &[("ip", 0, 16, B), ("pad", 16, 2, B)]);
        let misfit = Misfit::Size { field: "ip".into(), from: 4, to: 16 };
        assert_eq!(Conversion::between(&four, &sixteen, Role::Value), Err(misfit));
        let other = layout(6, &[("pad", 0, 2, N), ("ip", 2, 4, B)]);
        let another = Layout { name: "another".into(), ..other.clone() };
        assert!(matches!(Conversion::between(&four, &another, Role::Key), Err(Misfit::Type { .. })));
        let mut record = [0xee; 6];
        assert!(Conversion::between(&four, &other, Role::Key).unwrap().convert(&[1, 2, 3, 4, 9, 9, 9, 9], &mut record));
        assert_eq!(record, [0, 0, 1, 2, 3, 4]);
    }
}
