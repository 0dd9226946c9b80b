//! Makes a process of a test's own server stand still.

use super::procs;
use nix::errno::Errno;
use std::sync::mpsc;
use std::time::Duration;

/// A process whose threads hang until this is dropped, as ones that wait for the kernel would. By ptrace(2), since the
/// supervisor lets a process that was stopped by a signal go on.
pub struct Held {
    release: Option<mpsc::Sender<()>>,
    tracer: Option<std::thread::JoinHandle<()>>,
}

impl Held {
    /// Holds a process.
    pub fn process(pid: u32) -> Held {
        let (release, released) = mpsc::channel();
        let (tell, held) = mpsc::channel();
        let tracer = std::thread::spawn(move || hold(pid, &tell, &released));
        held.recv().expect("the process is held");
        Held {
            release: Some(release),
            tracer: Some(tracer),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.release.take());
        if let Some(tracer) = self.tracer.take() {
            let _ = tracer.join();
        }
    }
}

/// One thread from the beginning to the end: it alone is the tracer.
fn hold(pid: u32, tell: &mpsc::Sender<()>, released: &mpsc::Receiver<()>) {
    let mut threads = Vec::new();
    // Who does not stand still yet may start others, until a look finds none.
    loop {
        let mut new = procs::threads(pid);
        new.retain(|thread| !threads.contains(thread));
        if new.is_empty() {
            break;
        }
        threads.extend(new.into_iter().filter(|thread| stopped(*thread)));
    }
    tell.send(()).expect("the test waits for this");
    // Its end is told to its tracer first, and only then to its parent.
    let lives = |thread: &i32| {
        let flags = libc::__WALL | libc::WNOHANG;
        // SAFETY: numbers and a null pointer; the threads are those of a process of this test's own server.
        unsafe { libc::waitpid(*thread, std::ptr::null_mut(), flags) == 0 }
    };
    let wait = Duration::from_millis(5);
    while released.recv_timeout(wait) == Err(mpsc::RecvTimeoutError::Timeout) {
        threads.retain(lives);
    }
    let null = std::ptr::null_mut::<libc::c_void>();
    for thread in &threads {
        // SAFETY: as above.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, *thread, null, null) };
    }
}

/// Makes a thread stand still; false for one that has ended or ends now.
fn stopped(thread: i32) -> bool {
    let null = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: numbers and null pointers; the thread is one of a process of this test's own server.
    let seized = unsafe { libc::ptrace(libc::PTRACE_SEIZE, thread, null, null) };
    if let Err(errno) = Errno::result(seized) {
        // Gone, or not yet reaped.
        let ended = procs::state(thread as u32).is_none_or(|state| matches!(state, 'Z' | 'X'));
        assert!(ended, "thread {thread} can't be held: {errno}");
        return false;
    }
    let mut status = 0;
    // SAFETY: as above; the status outlives the call.
    unsafe {
        // Fails for who ends now, of which the tracer is told next.
        libc::ptrace(libc::PTRACE_INTERRUPT, thread, null, null);
        assert_eq!(libc::waitpid(thread, &raw mut status, libc::__WALL), thread);
    }
    libc::WIFSTOPPED(status)
}
