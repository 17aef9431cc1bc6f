// SPDX-License-Identifier: Apache-2.0
import Glibc
import Synchronization

/// A terminal in non-canonical mode, without echo, signals (Ctrl-C is a key) and cursor, on the alternate screen.
/// `restore` puts it back into its original state. A crash does so, too.
final class TopScreen: Sendable {
    private let original: termios
    private let isRestored = Mutex(false)

    init() {
        var original = termios()
        tcgetattr(STDIN_FILENO, &original)
        self.original = original
        restoreWhenCrashing(original)
        var raw = original
        raw.c_lflag &= ~tcflag_t(ICANON | ECHO | ISIG)
        // read(2) returns at once with the available bytes.
        withUnsafeMutableBytes(of: &raw.c_cc) { codes in
            codes[Int(VMIN)] = 0
            codes[Int(VTIME)] = 0
        }
        tcsetattr(STDIN_FILENO, TCSANOW, &raw)
        try? put("\u{1b}[?1049h\u{1b}[?25l")
    }

    func restore() {
        isRestored.withLock { isRestored in
            guard !isRestored else { return }
            isRestored = true
            try? put(leavingScreen.description)
            var original = original
            tcsetattr(STDIN_FILENO, TCSANOW, &original)
        }
    }

    /// Each line is erased before it is written: erasing to the right of a line that fills the terminal would erase its
    /// last character.
    func show(_ lines: [String]) throws {
        try isRestored.withLock { isRestored in
            guard !isRestored else { return }
            try put("\u{1b}[H" + lines.map { "\u{1b}[K" + $0 }.joined(separator: "\r\n") + "\u{1b}[J")
        }
    }

    func readBytes() -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 64)
        let count = read(STDIN_FILENO, &bytes, bytes.count)
        return Array(bytes.prefix(max(0, count)))
    }

    private func put(_ text: String) throws {
        try StandardOutput.write(text)
        try StandardOutput.flush()
    }
}

private let leavingScreen: StaticString = "\u{1b}[m\u{1b}[?25h\u{1b}[?1049l"

// A signal handler may use only plain memory and async-signal-safe functions, see signal-safety(7).

private struct SavedState {
    let attributes: UnsafeMutablePointer<termios>
    /// One for each of `crashes`.
    let actions: UnsafeMutablePointer<sigaction>
    let crashes: UnsafeMutablePointer<Int32>
    let count: Int
    let text: UnsafePointer<UInt8>
    let length: Int
}

/// Set once, before the handlers are installed.
nonisolated(unsafe) private var saved: SavedState?

private func restoreWhenCrashing(_ original: termios) {
    let crashes = [SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGTRAP]
    let state = SavedState(
        attributes: .allocate(capacity: 1), actions: .allocate(capacity: crashes.count),
        crashes: .allocate(capacity: crashes.count), count: crashes.count, text: leavingScreen.utf8Start,
        length: leavingScreen.utf8CodeUnitCount)
    state.attributes.initialize(to: original)
    state.crashes.initialize(from: crashes, count: crashes.count)
    saved = state
    for (index, signal) in crashes.enumerated() {
        var action = sigaction()
        action.__sigaction_handler.sa_handler = { restoreAndCrash($0) }
        sigaction(signal, &action, state.actions + index)
    }
}

/// Passes the signal to its earlier handler, such as Swift's backtrace, or to the default action.
private func restoreAndCrash(_ signal: Int32) {
    guard let saved else { return }
    _ = write(STDOUT_FILENO, saved.text, saved.length)
    tcsetattr(STDIN_FILENO, TCSANOW, saved.attributes)
    for index in 0..<saved.count where saved.crashes[index] == signal {
        sigaction(signal, saved.actions + index, nil)
    }
    raise(signal)
}
