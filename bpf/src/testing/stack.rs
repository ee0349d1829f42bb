//! How much stack the programs take along their deepest chain of calls, as the strictest kernel counts it.

use super::{SLUICE, load};
use libbpf_rs::libbpf_sys::bpf_insn;

/// What a kernel allows one chain of calls.
pub const STACK_BYTES_MAX: usize = 512;
/// Kernels before 6.9 round each function's part up to so many; later ones to half of it where they compile programs.
const ROUNDED_TO: usize = 32;

const CALL: u8 = 0x85;
const PSEUDO_CALL: u8 = 1;
const MOVE: u8 = 0xbf;
const ADD: u8 = 0x07;
const FRAME: u8 = 10;
/// Instructions of these classes address memory: loads by their source, stores by their destination.
const LOADS: u8 = 1;
const STORES: [u8; 2] = [2, 3];
const EXIT: u8 = 0x95;

/// Of every program: its name, and the bytes of its deepest chain.
///
/// # Panics
/// When the kernel refuses the programs.
pub fn deepest_chains() -> Vec<(String, usize)> {
    let object = load(SLUICE);
    let chain = |program: libbpf_rs::Program<'_>| (program.name().to_string_lossy().into_owned(), deepest(program.insns(), 0));
    object.progs().map(chain).collect()
}

/// From the function that begins there on. A program's functions lie behind each other; the next one that is called ends one.
fn deepest(code: &[bpf_insn], begin: usize) -> usize {
    let target = |(at, insn): (usize, &bpf_insn)| {
        (insn.code == CALL && insn.src_reg() == PSEUDO_CALL).then(|| at.wrapping_add_signed(insn.imm as isize + 1))
    };
    let end = code.iter().enumerate().filter_map(target).filter(|&other| other > begin).min().unwrap_or(code.len());
    let own = code[begin..end].windows(2).map(reach).max().unwrap_or(0).max(1);
    let called = (begin..end).filter_map(|at| target((at, &code[at]))).map(|other| deepest(code, other)).max();
    own.next_multiple_of(ROUNDED_TO) + called.unwrap_or(0)
}

/// How far below its frame the first of two instructions reaches; the second one may add to a copy of the frame's address.
fn reach(pair: &[bpf_insn]) -> usize {
    let (insn, next) = (&pair[0], &pair[1]);
    let class = insn.code & 7;
    let below = match insn.code {
        MOVE if insn.src_reg() == FRAME && next.code == ADD && next.dst_reg() == insn.dst_reg() => next.imm,
        EXIT | CALL => 0,
        _ if class == LOADS && insn.src_reg() == FRAME => insn.off.into(),
        _ if STORES.contains(&class) && insn.dst_reg() == FRAME => insn.off.into(),
        _ => 0,
    };
    below.min(0).unsigned_abs() as usize
}
