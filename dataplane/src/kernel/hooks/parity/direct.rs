//! What goes straight from one pod's device to another's.

use super::{INCARNATION, ISOLATED, Pair, both_ways, cached, long_frames, timeless};
use crate::kernel::hooks::parse::parse;
use bytemuck::Zeroable;
use sluice_bpf::abi::{CACHE_ALLOW, COUNT_DIRECT, CacheValue, Key, MARK_DIRECT, Port};
use sluice_bpf::testing::{Context, Fate, IFINDEX, PORT_INDEX};
use sluice_flow::{Direction, Protocol};
use sluice_frames::{Choices, random_bytes};

/// What the kernel brought shows the way, what was shown is brought, and the rest goes by the kernel: the same frames, entries
/// and counts. The one port is sender and receiver.
#[test]
fn what_the_kernel_took_there_is_brought_the_same() {
    super::on_a_router(|| {
        for (direction, port) in both_ways(ISOLATED) {
            let (mut brought, mut shown, mut tcp_brought) = (0, 0, 0);
            for (direct_mtu, tcp) in [(0, true), (60, false), (1500, false), (60, true), (1500, true)] {
                let to = Port { direct_mtu, gateway_mac: [6; 6], ..port };
                let pair = if tcp { Pair::for_direct_tcp(to) } else { Pair::new(to) };
                for (number, (what, frame)) in long_frames(4_000).enumerate() {
                    let own = Key { incarnation: INCARNATION, port: PORT_INDEX, direction: direction as u8, ..Zeroable::zeroed() };
                    let Ok(parsed) = parse(&frame, own) else { continue };
                    if !parsed.keyed {
                        continue;
                    }
                    let bytes = random_bytes(number as u64, 64);
                    let mut choices = Choices::new(&bytes);
                    let value = CacheValue { verdict: CACHE_ALLOW, flags: 0, ..cached(&mut choices) };
                    let senders = Key { direction: Direction::Egress as u8, ..parsed.key };
                    let mut keys = vec![parsed.key];
                    if direction == Direction::Ingress && !choices.rarely() {
                        keys.push(senders);
                    }
                    for key in &keys {
                        pair.model.remember(key, &value);
                        pair.twin.cache.borrow_mut().insert(*key, value);
                    }
                    let ingress_ifindex = match direction {
                        Direction::Egress => 0,
                        Direction::Ingress => choices.pick(&[IFINDEX, IFINDEX, IFINDEX + 1]),
                    };
                    let mark = if choices.rarely() { MARK_DIRECT | 0x77 } else { 0x77 };
                    let mark = if direction == Direction::Ingress { mark } else { 0x77 };
                    let fate = pair.run(direction, &what, &frame, Context { mark, ingress_ifindex, ..Context::default() });
                    brought += usize::from(matches!(fate, Fate::Direct(_)));
                    let is_tcp = parsed.key.protocol == Protocol::TCP.0;
                    tcp_brought += usize::from(is_tcp && matches!(fate, Fate::Direct(_)));
                    assert!(tcp || !is_tcp || !matches!(fate, Fate::Direct(_)), "{what}: by the kernel");
                    for key in keys {
                        let twins = pair.twin.cache.borrow_mut().remove(&key).expect("the hooks remove nothing");
                        let models = pair.model.forget(&key);
                        shown += usize::from(key.direction != direction as u8 && models.direct_until_ns != value.direct_until_ns);
                        assert_eq!(timeless(models), timeless(twins), "{what} {direction}: BPF's and the twin's entry");
                    }
                }
                assert!(direct_mtu != 0 || pair.model.counters()[COUNT_DIRECT] == 0, "nothing is brought there");
            }
            let met =
                if direction == Direction::Egress { brought > 50 && tcp_brought > 10 && shown == 0 } else { shown > 100 && brought == 0 };
            assert!(met, "{direction}: {brought} brought, {tcp_brought} of them TCP, {shown} shown");
        }
    });
}
