// SPDX-License-Identifier: Apache-2.0
import Dispatch
import Foundation
import Messages
import NIOCore
import NIOPosix
import Testing

@Suite struct ReceivedContentTests {
    private static let size = 512 << 10

    /// A message is dropped while a piece of it waits to be written. The piece must not end up in a file that is opened
    /// afterwards.
    @Test func messageGivenUpWhileItIsWritten() async throws {
        let directory = FileManager.default.temporaryDirectory.appending(path: "weir-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: directory) }
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let threads = NIOThreadPool(numberOfThreads: 1)
        threads.start()
        let loop = group.next()
        // Room for one such message.
        let bounds = ContentBounds(directory: directory.path, mostMemory: 1 << 20, mostSpool: Self.size)
        let diskIsFree = DispatchSemaphore(value: 0)
        threads.submit { _ in diskIsFree.wait() }
        let others = try await loop.flatSubmit {
            let content = Self.spool(bounds, threads, loop)
            content.reset()
            // One of them gets the number of a descriptor that was closed too early.
            let others = (0..<20).map { number in
                let path = directory.appending(path: "other-\(number)")
                return FileManager.default.createFile(atPath: path.path, contents: nil)
                    ? try? FileHandle(forUpdating: path) : nil
            }
            // Its bytes are on the disk until they have been written.
            #expect(Self.spool(bounds, threads, loop).failure == .noRoom("the spool is full"))
            diskIsFree.signal()
            return threads.runIfActive(eventLoop: loop) { others }
        }.get()
        for other in others { #expect(try other?.seekToEnd() == 0) }
        let failure = try await loop.submit { Self.spool(bounds, threads, loop).failure }.get()
        #expect(failure == nil)
        try await threads.shutdownGracefully()
        try await group.shutdownGracefully()
    }

    /// Content on its way to a spool file.
    private static func spool(
        _ bounds: ContentBounds, _ threads: NIOThreadPool, _ loop: any EventLoop
    ) -> ReceivedContent {
        let content = ReceivedContent(bounds: bounds, threads: threads) { loop.execute($0) }
        content.begin(most: .max)
        content.buffer.writeRepeatingByte(UInt8(ascii: "x"), count: size)
        content.takeNew { _ in }
        _ = content.settle(isEnd: true) {}
        return content
    }
}
