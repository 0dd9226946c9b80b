//! Memory of children that go on with a copy of the whole process. The allocator's free lists lie scattered over the heap, and
//! each page of it that a child writes to, to take or give back a few bytes, is copied first: dozens of them for a cell,
//! which costs more than most of what the cell does. So a child takes what it needs from one piece, in turn, and gives
//! nothing back: it ends or executes something else soon.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bytes for a child; what does not fit is taken from the heap. A cell's build needs a tenth of it. Costs no memory until it is
/// written to.
const ROOM: usize = 256 * 1024;

/// At least, as malloc(3) does: there is code that asks for bytes and puts structures there.
const ALIGNMENT: usize = 16;

#[repr(C, align(4096))]
struct Room(UnsafeCell<[u8; ROOM]>);

// SAFETY: each byte is handed out once, see `Allocator::alloc`.
unsafe impl Sync for Room {}

static ROOM_OF_CHILDREN: Room = Room(UnsafeCell::new([0; ROOM]));

/// How much of it is taken; `usize::MAX` in a process that is no such child.
static TAKEN: AtomicUsize = AtomicUsize::new(usize::MAX);

/// The system's allocator, until [`begin_child`].
pub struct Allocator;

/// From here on this process takes its memory as a child does. A child of its own goes on where this one was.
pub fn begin_child() {
    let _ = TAKEN.compare_exchange(usize::MAX, 0, Relaxed, Relaxed);
}

/// Where a piece begins in the room, if it is in it.
fn place(pointer: *mut u8) -> Option<usize> {
    let offset = (pointer as usize).wrapping_sub(ROOM_OF_CHILDREN.0.get() as usize);
    (offset < ROOM).then_some(offset)
}

/// Takes or gives back: what is taken ended at `from` and ends at `to` now. False where it does not, or can't. Children have
/// one thread; this makes it right with more.
fn moved(from: usize, to: usize) -> bool {
    to <= ROOM && TAKEN.compare_exchange(from, to, Relaxed, Relaxed).is_ok()
}

// SAFETY: what is handed out is from the system's allocator, or a piece of the room that nobody else has: within it, aligned
// as asked for, and handed out again only after the last piece of all was given back.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let taken = TAKEN.load(Relaxed);
        if taken != usize::MAX && layout.align() <= 4096 {
            let start = taken.next_multiple_of(layout.align().max(ALIGNMENT));
            if moved(taken, start.saturating_add(layout.size())) {
                // SAFETY: start is within the room.
                return unsafe { ROOM_OF_CHILDREN.0.get().cast::<u8>().add(start) };
            }
        }
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if TAKEN.load(Relaxed) == usize::MAX {
            // SAFETY: as above.
            return unsafe { System.alloc_zeroed(layout) };
        }
        // SAFETY: as above.
        let pointer = unsafe { self.alloc(layout) };
        if !pointer.is_null() {
            // SAFETY: it is that long.
            unsafe { pointer.write_bytes(0, layout.size()) };
        }
        pointer
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        match place(pointer) {
            // Only the last piece can be taken again; what else is given back stays unused.
            Some(start) => drop(moved(start + layout.size(), start)),
            // SAFETY: what is not from the room is from the system's allocator.
            None => unsafe { System.dealloc(pointer, layout) },
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        match place(pointer) {
            // SAFETY: as above.
            None => return unsafe { System.realloc(pointer, layout, size) },
            // The last piece grows where it is.
            Some(start) if moved(start + layout.size(), start.saturating_add(size)) => {
                return pointer;
            }
            Some(_) => {}
        }
        // SAFETY: the alignment is the old one, and the caller promises that the size fits it.
        let new = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !new.is_null() {
            // SAFETY: both are that long, and the new one is nobody else's.
            unsafe { new.copy_from_nonoverlapping(pointer, layout.size().min(size)) };
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a process of its own, since it stays a child's.
    #[test]
    fn a_child_gets_pieces_that_are_its_own_and_takes_from_the_heap_what_has_no_room() {
        let child = crate::sys::fork().unwrap();
        if let nix::unistd::ForkResult::Child = child {
            begin_child();
            let right = std::panic::catch_unwind(|| {
                let in_room = |bytes: &Vec<u8>| place(bytes.as_ptr().cast_mut()).is_some();
                let mut kept: Vec<Vec<u8>> = Vec::new();
                for number in 0..200u8 {
                    let mut bytes = vec![number; usize::from(number) + 1];
                    assert!((bytes.as_ptr() as usize).is_multiple_of(ALIGNMENT));
                    bytes.extend([number; 77]);
                    kept.push(bytes);
                }
                assert!(in_room(&kept[0]) && in_room(&kept[199]));
                let large = vec![7u8; ROOM];
                assert!(!in_room(&large));
                // Room that is given back is taken again, or this would not fit.
                for _ in 0..1000 {
                    assert!(in_room(&vec![1u8; 4000]));
                }
                assert!(vec![0u8; 5000].iter().all(|byte| *byte == 0));
                for (number, bytes) in kept.iter().enumerate() {
                    assert_eq!(bytes.len(), number + 78);
                    assert!(bytes.iter().all(|byte| usize::from(*byte) == number));
                }
            });
            crate::sys::exit_now(i32::from(right.is_err()));
        }
        let nix::unistd::ForkResult::Parent { child } = child else {
            unreachable!();
        };
        let end = nix::sys::wait::waitpid(child, None).unwrap();
        assert!(
            matches!(end, nix::sys::wait::WaitStatus::Exited(_, 0)),
            "{end:?}"
        );
    }
}
