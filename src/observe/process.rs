//! Processor time and memory of this process, as the kernel counts them.

use std::time::Duration;

// The allocator of the program, which is linked with this.
use mimalloc as _;

unsafe extern "C" {
    /// Frees what the allocator keeps for this thread, and all memory that waits to be given back.
    fn mi_collect(force: bool);
}

/// Gives memory that was freed back to the kernel at once: what this thread has freed, and what
/// waits for that. Costs time in proportion to it.
pub fn give_back_memory() {
    // SAFETY: it may be called at any time on any thread, and changes nothing that is in use.
    unsafe { mi_collect(true) }
}

/// User and system time of all threads since the process started.
pub fn cpu_time() -> Duration {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: getrusage writes a whole `rusage` to the place given; zero is a valid one before.
    let usage = unsafe {
        let outcome = libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        assert_eq!(outcome, 0, "getrusage fails only for an unknown `who`");
        usage.assume_init()
    };
    duration(usage.ru_utime) + duration(usage.ru_stime)
}

/// User and system time of the running process `id`, all of its threads together.
///
/// # Errors
/// When there is no such process, or the kernel does not tell.
pub fn cpu_time_of(id: u32) -> std::io::Result<Duration> {
    let mut nanoseconds = 0_u64;
    for task in std::fs::read_dir(format!("/proc/{id}/task"))? {
        // A thread that ends between listing and reading takes its share with it.
        let Ok(text) = std::fs::read_to_string(task?.path().join("schedstat")) else { continue };
        nanoseconds += text.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanoseconds))
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let micros = u64::try_from(time.tv_usec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(micros)
}

/// Resident memory now; 0 where the kernel does not tell.
pub fn resident_bytes() -> u64 {
    status_bytes("VmRSS:")
}

/// Memory that the process cannot do without: resident pages but for those of mapped files, which
/// the kernel may drop at any time. All of the resident memory where the kernel does not tell.
pub fn anonymous_bytes() -> u64 {
    match status_bytes("RssAnon:") {
        0 => resident_bytes(),
        bytes => bytes,
    }
}

/// The most resident memory since the start, or since [`reset_peak`]; 0 where the kernel does
/// not tell.
pub fn resident_peak_bytes() -> u64 {
    status_bytes("VmHWM:")
}

/// Makes the peak start anew at what is resident now. False where the kernel does not allow it;
/// the peak then covers the whole life of the process.
pub fn reset_peak() -> bool {
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

fn status_bytes(field: &str) -> u64 {
    let Ok(text) = std::fs::read_to_string("/proc/self/status") else { return 0 };
    text.lines()
        .find_map(|line| line.strip_prefix(field))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .and_then(|kib| kib.trim().parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_costs_processor_time_and_memory() {
        let before = cpu_time();
        let mut sum = 0_u64;
        while cpu_time() - before < Duration::from_millis(20) {
            sum = sum.wrapping_add(std::hint::black_box(1));
        }
        assert!(sum > 0);
        if cfg!(target_os = "linux") {
            assert!(resident_bytes() > 1 << 20);
            assert!(anonymous_bytes() > 1 << 20);
            give_back_memory();
            assert!(resident_peak_bytes() >= resident_bytes() / 2);
        }
    }
}
