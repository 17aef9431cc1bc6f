// SPDX-License-Identifier: Apache-2.0
internal import CLinux
internal import DequeModule
internal import Glibc
package import NIOCore
internal import Synchronization

/// An event loop on epoll(7): one thread and its sockets.
///
/// One turn of the loop waits until sockets are ready, runs the tasks of other threads, lets each of the sockets read
/// or write a little, and runs the timers that are due. Then comes `endOfTurn`: there the ledger decides and answers
/// all requests of the turn together.
///
/// A turn has `turnTime`. Sockets share it (see `readSize`, `beginShare` and `CostlySockets`), and tasks run until it
/// is over. A client that sends little gets its answer within a turn or two, whatever a hundred others send.
///
/// Not one of SwiftNIO's loops: a policy request is one read and one write, and a channel pipeline costs more than both
/// (docs/decisions.md).
///
/// Sendable, unchecked: `tasks` is behind its lock, `owner` is atomic, and `name`, `wakeup` and `epoll` never change.
/// All other state belongs to the thread, which the methods check in debug builds.
package final class SocketLoop: @unchecked Sendable {
    /// A socket that a loop watches.
    package protocol Socket: AnyObject {
        /// Called when the socket can be read or written, or has failed. It must not block.
        func isReady()
    }

    package enum Interest {
        case reading, writing, readingAndWriting
        /// For a listening socket that several loops watch: the kernel wakes only some of them. Can't be changed later.
        case accepting
        /// Only failures, and the hang-up of a peer on this machine.
        case nothing

        fileprivate var events: UInt32 {
            switch self {
            case .reading: EPOLLIN.rawValue
            case .writing: EPOLLOUT.rawValue
            case .readingAndWriting: EPOLLIN.rawValue | EPOLLOUT.rawValue
            case .accepting: EPOLLIN.rawValue | EPOLLEXCLUSIVE.rawValue
            case .nothing: 0
            }
        }
    }

    private struct Timer {
        let deadline: NIODeadline
        let task: () -> Void
    }

    private let name: String
    private let epoll: Int32
    /// Readable while `tasks` is not empty.
    private let wakeup: Int32
    private let tasks = Mutex<[@Sendable () -> Void]>([])
    private let owner = Atomic<UInt>(0)
    /// For the shares of sockets in a turn, not for timers.
    private let clock: @Sendable () -> NIODeadline
    /// What the thread has used of a processor. Reading it takes a system call.
    private let processorTime: @Sendable () -> NIODeadline
    /// By descriptor.
    private var sockets: [(any Socket)?] = []
    private var costly = CostlySockets()
    /// The sockets that the next turn calls, whether they are ready or not.
    private var again: [Int32] = []
    /// The sockets that the next turn calls before all others, the longest wait first.
    private var delayed: [Int32] = []
    /// Tasks that were taken from `tasks` and have not run yet.
    private var taken: Deque<@Sendable () -> Void> = []
    /// By deadline, the next one last.
    private var timers: [Timer] = []
    private var isStopped = false
    /// The number of this turn. What a turn has read may be overwritten in the next.
    package private(set) var turn: UInt64 = 0
    private var turnEnd = NIODeadline.distantFuture
    /// The sockets that are ready in this turn, and the tasks of other threads.
    private var ready = 1
    /// Runs at the end of each turn.
    package var endOfTurn: () -> Void = {}

    /// Sockets handled in one turn. The others wait for the next.
    private static let mostEvents = 256
    /// The time of a turn, for all sockets together. Each may finish what it has begun, so a turn takes a little more.
    package static let turnTime = TimeAmount.microseconds(500)
    /// The least share of a socket, however many others are ready.
    private static let leastShare = TimeAmount.microseconds(40)
    /// How long the thread may keep the processor once it has it. The scheduler prefers threads with short slices, so
    /// those that write files or look up rules do not hold up the sockets.
    private static let slice = TimeAmount.microseconds(200)
    /// Bytes that all sockets read in a turn, if each reads `leastRead` or more.
    private static let mostRead = 256 << 10
    private static let leastRead = 4 << 10

    /// Makes a loop and starts its thread, which retains the loop until `stop`.
    ///
    /// - Parameters:
    ///   - name: of the thread, at most 15 bytes.
    ///   - clock: measures what sockets take of a turn; nil measures it with the system's clocks.
    /// - Throws: `IOError` if the process can have no more descriptors or threads.
    package static func start(
        named name: String, clock: (@Sendable () -> NIODeadline)? = nil
    ) throws -> SocketLoop {
        let loop = try make(named: name, clock ?? { .now() }, clock ?? { threadTime })
        try loop.startThread()
        return loop
    }

    /// Makes a loop without a thread. The calling thread owns it and runs its turns with `step`. Turns have no end by
    /// themselves, so what happens does not depend on the speed of the machine.
    package static func stepped(
        clock: @escaping @Sendable () -> NIODeadline = { .uptimeNanoseconds(0) },
        processorTime: (@Sendable () -> NIODeadline)? = nil
    ) throws -> SocketLoop {
        let loop = try make(named: "", clock, processorTime ?? clock)
        loop.owner.store(UInt(pthread_self()), ordering: .relaxed)
        return loop
    }

    private static func make(
        named name: String, _ clock: @escaping @Sendable () -> NIODeadline,
        _ processorTime: @escaping @Sendable () -> NIODeadline
    ) throws -> SocketLoop {
        let epoll = epoll_create1(Int32(EPOLL_CLOEXEC))
        guard epoll >= 0 else { throw IOError(errnoCode: errno, reason: "epoll_create1") }
        let wakeup = eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK))
        guard wakeup >= 0 else {
            defer { Glibc.close(epoll) }
            throw IOError(errnoCode: errno, reason: "eventfd")
        }
        let loop = SocketLoop(name: name, epoll: epoll, wakeup: wakeup, clock, processorTime)
        try loop.add(wakeup, .reading)
        return loop
    }

    private init(
        name: String, epoll: Int32, wakeup: Int32, _ clock: @escaping @Sendable () -> NIODeadline,
        _ processorTime: @escaping @Sendable () -> NIODeadline
    ) {
        self.name = name
        self.clock = clock
        self.processorTime = processorTime
        self.epoll = epoll
        self.wakeup = wakeup
    }

    deinit {
        Glibc.close(wakeup)
        Glibc.close(epoll)
    }

    private func startThread() throws {
        var thread = pthread_t()
        let own = Unmanaged.passRetained(self)
        let code = pthread_create(
            &thread, nil,
            { loop in
                let loop = Unmanaged<SocketLoop>.fromOpaque(loop!).takeRetainedValue()
                pthread_setname_np(pthread_self(), loop.name)
                loop.run()
                return nil
            }, own.toOpaque())
        guard code == 0 else {
            own.release()
            throw IOError(errnoCode: code, reason: "pthread_create")
        }
        pthread_detach(thread)
    }

    /// Ends the thread after this turn. Tasks that come later may not run.
    package func stop() async {
        await withCheckedContinuation { continuation in
            execute {
                self.isStopped = true
                continuation.resume()
            }
        }
    }

    // MARK: From any thread

    /// Runs a task on the loop, in the order of the calls.
    package func execute(_ task: @escaping @Sendable () -> Void) {
        let isFirst = tasks.withLock { tasks in
            tasks.append(task)
            return tasks.count == 1
        }
        if isFirst { eventfd_write(wakeup, 1) }
    }

    /// Runs `body` on the loop and returns its result.
    package func submit<T: Sendable>(_ body: @escaping @Sendable () throws -> T) async throws -> T {
        try await withCheckedThrowingContinuation { continuation in
            execute { continuation.resume(with: Result { try body() }) }
        }
    }

    /// Whether the calling thread is the loop's.
    private var isCurrent: Bool { owner.load(ordering: .relaxed) == UInt(pthread_self()) }

    package func preconditionInLoop() {
        precondition(isCurrent, "not on the loop")
    }

    /// Checks in debug builds what "belongs to the loop" claims.
    package func assertInLoop() {
        assert(isCurrent, "not on the loop")
    }

    // MARK: On the loop

    /// Runs a task after `delay`, late by at most a millisecond and the current turn.
    package func schedule(in delay: TimeAmount, _ task: @escaping () -> Void) {
        assertInLoop()
        let timer = Timer(deadline: .now() + delay, task: task)
        let place = timers.lastIndex { $0.deadline > timer.deadline }.map { $0 + 1 } ?? 0
        timers.insert(timer, at: place)
    }

    /// Runs a task repeatedly until it returns false.
    package func schedule(every interval: TimeAmount, _ task: @escaping () -> Bool) {
        schedule(in: interval) { [unowned self] in
            if task() { schedule(every: interval, task) }
        }
    }

    /// Watches a socket until `unwatch` or `close`. The loop retains it until then.
    ///
    /// - Throws: `IOError` if the kernel has no memory, or the user watches `fs.epoll.max_user_watches` sockets. The
    ///   caller then closes the socket.
    package func watch(_ descriptor: Int32, for interest: Interest, _ socket: any Socket) throws(IOError) {
        assertInLoop()
        try add(descriptor, interest)
        let index = Int(descriptor)
        while sockets.count <= index { sockets.append(nil) }
        sockets[index] = socket
        costly.forget(descriptor)
    }

    package func change(_ descriptor: Int32, to interest: Interest) {
        assertInLoop()
        // For a watched descriptor this needs no memory and can't fail.
        precondition(control(EPOLL_CTL_MOD, descriptor, interest) == 0, "epoll_ctl")
    }

    /// Stops watching a socket, which stays open.
    package func unwatch(_ descriptor: Int32) {
        assertInLoop()
        sockets[Int(descriptor)] = nil
        costly.forget(descriptor)
        precondition(control(EPOLL_CTL_DEL, descriptor, .nothing) == 0, "epoll_ctl")
    }

    /// Closes a watched socket.
    package func close(_ descriptor: Int32) {
        assertInLoop()
        sockets[Int(descriptor)] = nil
        costly.forget(descriptor)
        // Closing removes the descriptor from the epoll set.
        Glibc.close(descriptor)
    }

    private func add(_ descriptor: Int32, _ interest: Interest) throws(IOError) {
        guard control(EPOLL_CTL_ADD, descriptor, interest) == 0 else {
            throw IOError(errnoCode: errno, reason: "epoll_ctl")
        }
    }

    private func control(_ operation: Int32, _ descriptor: Int32, _ interest: Interest) -> Int32 {
        var event = epoll_event(events: interest.events, data: epoll_data_t(fd: descriptor))
        return epoll_ctl(epoll, operation, descriptor, &event)
    }

    // MARK: Shares of a turn

    /// How much a socket may read in this turn: less than `most` if many are ready.
    package func readSize(_ most: Int) -> Int { min(most, max(Self.leastRead, Self.mostRead / ready)) }

    /// The end of a share of this turn that begins now, for the socket or task that is being handled.
    package func beginShare() -> NIODeadline { clock() + share }

    /// Whether a share is used up. The socket then leaves the rest of its work to the next turn (`callAgain`).
    package func isOver(_ share: NIODeadline) -> Bool { clock() >= share }

    /// Whether this turn has taken its time. Only what others wait for is done then.
    package var isTurnOver: Bool { clock() >= turnEnd }

    /// Calls a socket in the next turn, whether it is ready or not. If it is closed before, a new socket with its
    /// descriptor may be called.
    package func callAgain(_ descriptor: Int32) {
        assertInLoop()
        again.append(descriptor)
    }

    /// Calls a socket for which this turn had no room before all others of the next turn. It costs nothing meanwhile. A
    /// socket that is closed before may be replaced as with `callAgain`.
    package func callFirst(_ descriptor: Int32) {
        assertInLoop()
        delayed.append(descriptor)
    }

    private var share: TimeAmount {
        .nanoseconds(max(Self.leastShare.nanoseconds, Self.turnTime.nanoseconds / Int64(ready)))
    }

    // MARK: The thread

    private func run() {
        owner.store(UInt(pthread_self()), ordering: .relaxed)
        // Without effect before Linux 6.12.
        weir_set_slice(UInt64(Self.slice.nanoseconds))
        withUnsafeTemporaryAllocation(of: epoll_event.self, capacity: Self.mostEvents) { events in
            while !isStopped { runTurn(events, timeout: millisecondsUntilTimer()) }
        }
        removeTasks()
    }

    /// Runs a turn of a `stepped` loop with what is ready now.
    package func step() {
        assertInLoop()
        withUnsafeTemporaryAllocation(of: epoll_event.self, capacity: Self.mostEvents) { runTurn($0, timeout: 0) }
    }

    /// Releases what the loop would still call. It must not run another turn.
    package func removeTasks() {
        endOfTurn = {}
        timers = []
        taken = []
    }

    /// - Parameter timeout: milliseconds to wait until a socket is ready; -1 waits without end.
    private func runTurn(_ events: UnsafeMutableBufferPointer<epoll_event>, timeout: Int32) {
        let timeout = again.isEmpty && delayed.isEmpty && taken.isEmpty && !costly.isWaiting ? timeout : 0
        // Never nil, as there is room for events. glibc 2.41 declares that epoll_wait takes no nil.
        let count = max(0, Int(epoll_wait(epoll, events.baseAddress!, Int32(events.count), timeout)))
        turn &+= 1
        ready = max(1, count + again.count)
        let start = clock()
        turnEnd = start + Self.turnTime
        handle(events.prefix(count), start)
        runTimers()
        endOfTurn()
    }

    private func handle(_ events: Slice<UnsafeMutableBufferPointer<epoll_event>>, _ start: NIODeadline) {
        var now = start
        // What is handled in this turn may call `callAgain` or `callFirst` for the next one.
        var (called, first): ([Int32], [Int32]) = ([], [])
        swap(&called, &again)
        swap(&first, &delayed)
        let hasNewTasks = events.contains { $0.data.fd == wakeup }
        if hasNewTasks || !taken.isEmpty {
            runTasks(hasNewTasks)
            now = clock()
        }
        for descriptor in first { handle(descriptor, &now) }
        for event in events where event.data.fd != wakeup {
            let descriptor = event.data.fd
            if !costly.postpones(descriptor) {
                handle(descriptor, &now)
            }
        }
        for descriptor in called where !costly.postpones(descriptor) { handle(descriptor, &now) }
        while let descriptor = costly.next() {
            handle(descriptor, &now)
            guard now < turnEnd else { return }
        }
    }

    private func handle(_ descriptor: Int32, _ now: inout NIODeadline) {
        let (start, before) = (now, again.count)
        let used = costly.isSuspect(descriptor) ? processorTime() : nil
        // nil if another socket of this turn has closed it.
        sockets[Int(descriptor)]?.isReady()
        now = clock()
        let measured = used.map { processorTime() - $0 }
        // A socket may also have work left to another one, such as the other end of a dialogue.
        let hasMore = again[before...].contains(descriptor)
        costly.note(descriptor, took: now - start, measured, share: share, hasMore: hasMore)
    }

    private static var threadTime: NIODeadline {
        var time = timespec()
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
        return .uptimeNanoseconds(UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec))
    }

    /// -1 without a timer.
    private func millisecondsUntilTimer() -> Int32 {
        guard let next = timers.last else { return -1 }
        let left = (next.deadline - .now()).nanoseconds
        return left <= 0 ? 0 : Int32(clamping: (left + 999_999) / 1_000_000)
    }

    /// Runs the tasks of other threads in their order until the turn is over, and at least one. The next turn goes on.
    private func runTasks(_ hasNewTasks: Bool) {
        if hasNewTasks {
            var count: eventfd_t = 0
            eventfd_read(wakeup, &count)
            tasks.withLock { tasks in
                taken.append(contentsOf: tasks)
                tasks = []
            }
        }
        ready += taken.count
        while let task = taken.popFirst() {
            task()
            if isTurnOver { return }
        }
    }

    private func runTimers() {
        guard var next = timers.last else { return }
        let now = NIODeadline.now()
        while next.deadline <= now {
            timers.removeLast()
            next.task()
            guard let following = timers.last else { return }
            next = following
        }
    }
}
