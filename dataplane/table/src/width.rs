//! How wide numbers are stored. Small tables live in caches, so a table uses the narrow form wherever everything fits it,
//! and the code for all forms is the same.

use bytemuck::Pod;

/// An unsigned number of one stored width.
pub(crate) trait Width: Pod + Ord + Send + Sync {
    fn read(self) -> usize;

    /// 0.
    const ZERO: Self;

    /// Numbers are below it.
    const LIMIT: usize;

    /// Panics where the number does not fit: whoever writes chose the width.
    fn write(value: usize) -> Self;
}

macro_rules! width {
    ($type:ty) => {
        impl Width for $type {
            const ZERO: Self = 0;
            const LIMIT: usize = 1 << <$type>::BITS;

            #[inline(always)]
            fn read(self) -> usize {
                self as usize
            }

            fn write(value: usize) -> Self {
                value.try_into().expect("the width was chosen so that everything fits")
            }
        }
    };
}

/// The numbers of a table that grow with the cluster: classes, blocks, segments, chunks, actions.
pub(crate) trait Large: Width {}
/// The numbers that grow with one pod's policies: rows and port classes of one profile.
pub(crate) trait Small: Width {}

width!(u8);
width!(u16);
width!(u32);

impl Large for u16 {}
impl Large for u32 {}
impl Small for u8 {}
impl Small for Wide16 {}

/// 16 bits as the wide form of a small number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub(crate) struct Wide16(u16);

impl Width for Wide16 {
    const ZERO: Self = Self(0);
    const LIMIT: usize = 1 << 16;

    #[inline(always)]
    fn read(self) -> usize {
        usize::from(self.0)
    }

    fn write(value: usize) -> Self {
        Self(u16::write(value))
    }
}
