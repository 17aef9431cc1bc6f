// SPDX-License-Identifier: Apache-2.0
internal import CVectorscan
internal import Glibc

/// Compiled databases on disk, so that a restart with ten thousand rules need not compile them again.
///
/// The directory and its files must belong to the service's own user, and nobody else may have write permission: a
/// crafted database could corrupt the memory of the scanner.
///
/// `prune` bounds what former tables leave behind.
package struct FastPassCache: Sendable {
    let directory: String

    private static let prefix = "rules-"
    /// The files that `prune` keeps for other processes and for tables that may come back.
    private static let mostOthers = 16

    package init(directory: String) { self.directory = directory }

    struct Stored {
        let database: OpaquePointer
        /// Positions in the plan that Vectorscan refused.
        let refused: Set<Int>
        /// The name of the file.
        let name: String
    }

    /// The database for these patterns, this version of the library and this processor; nil if there is none, or if it
    /// can't be trusted.
    func load(_ plan: FastPass.Plan, _ subject: FastPattern.Subject) -> Stored? {
        let key = Self.key(plan, subject)
        guard directoryIsTrusted, let content = read(path(Self.name(key))) else { return nil }
        // The file holds the whole key; its name is only a hash.
        var reader = Reader(content)
        guard reader.read(key.count) == key[...], let refusedCount = reader.number(),
            refusedCount <= plan.rules.count
        else { return nil }
        var refused: Set<Int> = []
        for _ in 0..<refusedCount {
            guard let position = reader.number(), position < plan.rules.count else { return nil }
            refused.insert(position)
        }
        guard let blob = reader.rest else { return nil }
        // Vectorscan checks its own version, platform and checksum.
        var database: OpaquePointer?
        let code = blob.withUnsafeBytes {
            hs_deserialize_database(
                $0.baseAddress?.assumingMemoryBound(to: CChar.self), $0.count, &database)
        }
        guard code == HS_SUCCESS, let database else { return nil }
        return Stored(database: database, refused: refused, name: Self.name(key))
    }

    /// Stores a database. A failure is not an error: the next start compiles it again.
    ///
    /// - Returns: the name of the file; nil if there is none.
    func store(
        _ database: OpaquePointer?, refused: Set<Int>, _ plan: FastPass.Plan,
        _ subject: FastPattern.Subject
    ) -> String? {
        guard let database, makeDirectory(), directoryIsTrusted else { return nil }
        let key = Self.key(plan, subject)
        var content = key
        content += Self.bytes(of: refused.count)
        for position in refused.sorted() { content += Self.bytes(of: position) }
        var blob: UnsafeMutablePointer<CChar>?
        var length = 0
        guard hs_serialize_database(database, &blob, &length) == HS_SUCCESS, let blob else { return nil }
        content += UnsafeRawBufferPointer(start: blob, count: length)
        free(blob)
        let name = Self.name(key)
        return write(content, to: path(name)) ? name : nil
    }

    /// Deletes all files but those of `passes` and the newest others, which may be another process's. It would compile
    /// its tables again.
    package func prune(keeping passes: [FastPass]) {
        guard directoryIsTrusted, let entries = opendir(directory) else { return }
        defer { closedir(entries) }
        let kept = Set(passes.compactMap(\.cachedName))
        var others: [(name: String, time: timespec)] = []
        while let entry = readdir(entries) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            var status = stat()
            guard Self.isOwn(name), !kept.contains(name), lstat(path(name), &status) == 0 else { continue }
            others.append((name, status.st_mtim))
        }
        others.sort { ($0.time.tv_sec, $0.time.tv_nsec) > ($1.time.tv_sec, $1.time.tv_nsec) }
        for other in others.dropFirst(Self.mostOthers) { unlink(path(other.name)) }
    }

    /// Whether a file of this name was written here: the hash, and after a crash a number.
    private static func isOwn(_ name: String) -> Bool {
        guard name.hasPrefix(prefix) else { return false }
        let parts = name.dropFirst(prefix.count).split(separator: ".", omittingEmptySubsequences: false)
        return parts.count <= 2 && parts[0].count == 16
            && parts.allSatisfy { !$0.isEmpty && $0.allSatisfy(\.isHexDigit) }
    }

    // MARK: - Contents

    private static func key(_ plan: FastPass.Plan, _ subject: FastPattern.Subject) -> [UInt8] {
        var key = Array("weir fast pass 3\n".utf8)
        key += Array(String(cString: hs_version()).utf8) + [0, subject.code]
        key += bytes(of: plan.patterns.count)
        for (rule, pattern) in zip(plan.rules, plan.patterns) {
            key += bytes(of: Int(rule))
            key += [(pattern.caseless ? 1 : 0) | (pattern.isUnicode ? 2 : 0)]
            key += bytes(of: pattern.expression.count) + pattern.expression
        }
        return key
    }

    private static func bytes(of number: Int) -> [UInt8] {
        withUnsafeBytes(of: UInt32(number).littleEndian, Array.init)
    }

    private struct Reader {
        var content: ArraySlice<UInt8>

        init(_ content: [UInt8]) { self.content = content[...] }

        var rest: ArraySlice<UInt8>? { content.isEmpty ? nil : content }

        mutating func read(_ count: Int) -> ArraySlice<UInt8>? {
            guard content.count >= count else { return nil }
            defer { content = content.dropFirst(count) }
            return content.prefix(count)
        }

        mutating func number() -> Int? {
            read(4).map { $0.reversed().reduce(0) { $0 << 8 | Int($1) } }
        }
    }

    // MARK: - Files

    private func path(_ name: String) -> String { "\(directory)/\(name)" }

    private static func name(_ key: [UInt8]) -> String {
        // FNV-1a.
        let hash = key.reduce(0xcbf2_9ce4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
        let digits = String(hash, radix: 16)
        return prefix + String(repeating: "0", count: 16 - digits.count) + digits
    }

    private func makeDirectory() -> Bool { mkdir(directory, 0o700) == 0 || errno == EEXIST }

    private static func isTrusted(_ status: stat) -> Bool {
        status.st_uid == geteuid() && status.st_mode & 0o022 == 0
    }

    private var directoryIsTrusted: Bool {
        var status = stat()
        return lstat(directory, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
            && Self.isTrusted(status)
    }

    private func read(_ path: String) -> [UInt8]? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG,
            Self.isTrusted(status), status.st_size <= 1 << 30
        else { return nil }
        let size = Int(status.st_size)
        let content = [UInt8](unsafeUninitializedCapacity: size) { buffer, count in
            while count < size {
                let got = Glibc.read(descriptor, buffer.baseAddress! + count, size - count)
                if got <= 0 { break }
                count += got
            }
        }
        return content.count == size ? content : nil
    }

    /// Writes a temporary file and renames it, so a reader never sees an incomplete one. After a crash, `prune` deletes
    /// it.
    private func write(_ content: [UInt8], to path: String) -> Bool {
        let temporary = "\(path).\(String(UInt64.random(in: 0 ... .max), radix: 16))"
        let descriptor = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else { return false }
        var written = 0
        content.withUnsafeBytes { bytes in
            while written < bytes.count {
                let count = Glibc.write(
                    descriptor, bytes.baseAddress! + written, bytes.count - written)
                if count <= 0 { break }
                written += count
            }
        }
        close(descriptor)
        if written == content.count, rename(temporary, path) == 0 { return true }
        unlink(temporary)
        return false
    }
}

extension FastPattern.Subject {
    /// In the key of the cache.
    fileprivate var code: UInt8 {
        switch self {
        case .headers: 1
        case .lines: 2
        case .decodedHeaders: 3
        }
    }
}
