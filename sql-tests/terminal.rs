//! The shell on a terminal: what a person types and sees, and that the terminal is as it was when
//! the server is told to stop. Python lends the terminal; without it the tests are passed over.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs the program given on a pseudo terminal and follows a play from its standard input, one step
/// a line: `see TEXT` waits for it, `type TEXT` types it and Enter, `key N` sends that byte, `wait N`
/// lets so many seconds pass, `stop` sends SIGTERM. All output goes to the standard output, the last line being the exit code.
const PLAYER: &str = r#"
import os, pty, select, signal, sys, time
folder, binary = sys.argv[1:3]
pid, terminal = pty.fork()
if pid == 0:
    for name in [name for name in os.environ if name.startswith("MILLSTREAM_")]:
        del os.environ[name]
    os.environ.update(HOME=folder, TERM="xterm-256color")
    any_port = "127.0.0.1:0"
    os.execv(binary, [binary, "--data-dir", folder, "--listen", any_port, "--http", any_port])
seen = b""
def read(seconds):
    if not select.select([terminal], [], [], seconds)[0]:
        return True
    try:
        data = os.read(terminal, 65536)
    except OSError:
        data = b""
    sys.stdout.buffer.write(data)
    global seen
    seen += data
    return bool(data)
def see(text):
    global seen
    end = time.time() + 100
    while text not in seen:
        if not read(0.2) or time.time() > end:
            sys.stdout.write("\nnot seen: " + text.decode())
            os.kill(pid, signal.SIGKILL)
            sys.exit(1)
    seen = seen[seen.index(text) + len(text):]
for step in sys.stdin.read().splitlines():
    verb, _, rest = step.partition(" ")
    if verb == "see":
        see(rest.encode())
    elif verb == "type":
        os.write(terminal, rest.encode() + b"\r")
    elif verb == "key":
        os.write(terminal, bytes([int(rest)]))
    elif verb == "wait":
        time.sleep(float(rest))
    elif verb == "stop":
        os.kill(pid, signal.SIGTERM)
end = time.time() + 100
while read(0.2) and time.time() < end:
    pass
sys.stdout.flush()
status = os.waitpid(pid, 0)[1]
print("\nexit code", os.waitstatus_to_exitcode(status))
"#;

/// What the terminal got until the program ended, with its exit code in the last line; `None`
/// without Python.
fn play(folder: &Path, steps: &str) -> Option<String> {
    let mut player = Command::new("python3");
    player.arg("-c").arg(PLAYER).arg(folder).arg(env!("CARGO_BIN_EXE_millstream"));
    player.stdin(Stdio::piped()).stdout(Stdio::piped());
    let Ok(mut player) = player.spawn() else {
        print_line("skipped: there is no python3");
        return None;
    };
    let mut stdin = player.stdin.take().expect("piped");
    stdin.write_all(steps.as_bytes()).expect("the player reads");
    drop(stdin);
    let output = player.wait_with_output().expect("the player ends");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[expect(clippy::print_stdout, reason = "why a test was passed over is for people")]
fn print_line(text: &str) {
    println!("{text}");
}

/// Told to stop, the program leaves the screen that it has taken, shows the cursor again, and no
/// thread of it breaks down.
fn check_stopped(folder: &Path, screen: &str) {
    assert!(screen.trim_end().ends_with("exit code 0"), "{screen}");
    assert!(!screen.contains("panicked"), "{screen}");
    let log = std::fs::read_to_string(folder.join("millstream.log")).expect("there is a log");
    assert!(!log.contains("panicked"), "{log}");
    assert!(log.contains("server has stopped"), "{log}");
    for (taken, given_back) in [("\x1b[?1049h", "\x1b[?1049l"), ("\x1b[?25l", "\x1b[?25h")] {
        assert!(screen.rfind(given_back) >= screen.rfind(taken), "{given_back:?} in {screen:?}");
    }
}

#[test]
fn a_person_sees_results_errors_and_cancels() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let steps = r"see psql -h 127.0.0.1 -p
see \demo sets up flights data
see =>
type SELECT 1 AS a, 'x' AS b;
see (1 row)
see =>
type SELEC 1;
see syntax error at or near
see LINE 1: SELEC 1
see ^
see Perhaps you meant SELECT.
see =>
type \x
see Expanded display is on.
type SELECT 1 AS a;
see -[ RECORD 1 ]
see =>
type SELECT count(*) FROM generate_series(1, 1000000000000) AS g(n) WHERE n % 7 = 8;
see n % 7 = 8;
wait 3
key 3
see canceling statement due to user request
see =>
type SELECT 'still here' AS a;
see a | still here
see =>
type \q";
    let Some(screen) = play(folder.path(), steps) else { return };
    assert!(screen.trim_end().ends_with("exit code 0"), "{screen}");
}

#[test]
fn a_signal_ends_a_live_result_and_leaves_the_terminal_as_it_was() {
    for (typed, shown) in
        [("SELECT 1; \\watch 1", "Every 1 s: SELECT 1"), ("\\demo", "(14 rows)"), ("", "=> ")]
    {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let steps = format!("see =>\ntype {typed}\nsee {shown}\nstop");
        let Some(screen) = play(folder.path(), &steps) else { return };
        check_stopped(folder.path(), &screen);
    }
}
