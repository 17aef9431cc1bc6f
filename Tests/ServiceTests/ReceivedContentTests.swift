// SPDX-License-Identifier: Apache-2.0
import Dispatch
import Foundation
import Loop
import Messages
import NIOCore
import NIOPosix
import Testing

@Suite struct ReceivedContentTests {
    private static let size = 512 << 10

    /// A message is dropped while a piece of it waits to be written. The piece must not end up in a file that is opened
    /// afterwards.
    @Test func droppedMessageIsNotWrittenElsewhere() async throws {
        let directory = FileManager.default.temporaryDirectory.appending(path: "weir-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: directory) }
        let loop = try SocketLoop.start(named: "test")
        let threads = NIOThreadPool(numberOfThreads: 1)
        threads.start()
        // Room for one such message.
        let bounds = ContentBounds(directory: directory.path, mostMemory: 1 << 20, mostSpool: Self.size)
        let diskIsFree = DispatchSemaphore(value: 0)
        threads.submit { _ in diskIsFree.wait() }
        let others = try await loop.submit {
            let content = Self.spool(bounds, threads, loop)
            content.reset()
            // If the spool file were closed too early, one of these would get its descriptor.
            let others = (0..<20).map { number in
                let path = directory.appending(path: "other-\(number)")
                return FileManager.default.createFile(atPath: path.path, contents: nil)
                    ? try? FileHandle(forUpdating: path) : nil
            }
            // The bytes of the dropped message count until the write is done.
            #expect(Self.spool(bounds, threads, loop).failure == .noRoom("the spool is full"))
            diskIsFree.signal()
            return others
        }
        // Runs after the write, on the same thread.
        try await threads.runIfActive {}
        for other in others { #expect(try other?.seekToEnd() == 0) }
        let failure = try await loop.submit { Self.spool(bounds, threads, loop).failure }
        #expect(failure == nil)
        try await threads.shutdownGracefully()
        await loop.stop()
    }

    /// Creating the file may hang, as writing to it may.
    @Test func loopDoesNotWaitForTheFile() async throws {
        let loop = try SocketLoop.start(named: "test")
        let threads = NIOThreadPool(numberOfThreads: 1)
        threads.start()
        let bounds = ContentBounds(directory: "/nonexistent", mostMemory: 1 << 20, mostSpool: Self.size)
        let diskIsFree = DispatchSemaphore(value: 0)
        threads.submit { _ in diskIsFree.wait() }
        let content = try await loop.submit {
            let content = Self.spool(bounds, threads, loop)
            #expect(content.failure == nil)
            return Kept(content)
        }
        diskIsFree.signal()
        try await threads.runIfActive {}
        let failure = try await loop.submit { content.content.failure }
        #expect(
            failure == .noRoom("can't create a spool file in /nonexistent: No such file or directory"))
        try await threads.shutdownGracefully()
        await loop.stop()
    }

    /// Sendable, unchecked: only the loop uses the content.
    private struct Kept: @unchecked Sendable {
        let content: ReceivedContent

        init(_ content: ReceivedContent) { self.content = content }
    }

    /// Content whose write to a spool file has begun.
    private static func spool(
        _ bounds: ContentBounds, _ threads: NIOThreadPool, _ loop: SocketLoop
    ) -> ReceivedContent {
        let content = ReceivedContent(bounds: bounds, threads: threads, loop: loop)
        content.begin(most: .max)
        content.buffer.writeRepeatingByte(UInt8(ascii: "x"), count: size)
        content.withNewBytes { _ in }
        _ = content.spoolIfNeeded(isEnd: true) {}
        return content
    }
}
