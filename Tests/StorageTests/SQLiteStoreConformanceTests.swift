// SPDX-License-Identifier: Apache-2.0
import Foundation
import GRDB
import LedgerStoreConformance
import Limits
import Storage
import Testing

@Suite struct SQLiteStoreConformanceTests {
    private final class Fixture: StoreFixture {
        private let folder = NSTemporaryDirectory() + "weir-conformance-\(UUID().uuidString)"
        private let durability: Durability
        private var path: String { folder + "/ledger.sqlite" }

        init(_ durability: Durability) throws {
            self.durability = durability
            try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        }

        deinit {
            try? FileManager.default.removeItem(atPath: folder)
        }

        /// A crash ends the checkpoint writer, too. Here its queue may still have work, so this waits until the
        /// previous store has closed its files.
        func makeStore() throws -> any LedgerStore {
            var waited = 0
            while waited < 10_000, try hasOpenFiles() {
                usleep(1000)
                waited += 1
            }
            return SQLiteStore(path: path, durability: durability, notice: { _ in })
        }

        /// Whether this process has a file of the folder open (proc(5)).
        private func hasOpenFiles() throws -> Bool {
            let descriptors = "/proc/self/fd"
            return try FileManager.default.contentsOfDirectory(atPath: descriptors).contains { name in
                let file = try? FileManager.default.destinationOfSymbolicLink(atPath: "\(descriptors)/\(name)")
                return file?.hasPrefix(folder) ?? false
            }
        }

        func breakOpening() throws {
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
        }

        func breakCheckpoints() throws {
            try DatabaseQueue(path: path).write {
                try $0.execute(
                    sql: "CREATE TRIGGER broken BEFORE INSERT ON accounts BEGIN SELECT RAISE(ABORT, 'broken'); END")
            }
        }

        func repair() throws {
            var isFolder: ObjCBool = false
            if FileManager.default.fileExists(atPath: path, isDirectory: &isFolder), isFolder.boolValue {
                try FileManager.default.removeItem(atPath: path)
            } else {
                try DatabaseQueue(path: path).write { try $0.execute(sql: "DROP TRIGGER broken") }
            }
        }
    }

    @Test(arguments: StoreCheck.all, Durability.allCases)
    func conforms(check: StoreCheck, durability: Durability) throws {
        try check.run { try Fixture(durability) }
    }
}
