// SPDX-License-Identifier: Apache-2.0
internal import Glibc
internal import Report
internal import Settings

extension Metrics {
    /// The figures that Prometheus expects of every process, from proc(5).
    mutating func addProcess() {
        let seconds = Double(microseconds(of: CLOCK_PROCESS_CPUTIME_ID)) / 1e6
        add("process_cpu_seconds_total", .counter, "CPU time used, in seconds.", seconds)
        if case .success(let bytes) = BoundedFile.read("/proc/self/statm", upTo: 4096),
            let pages = Int(String(decoding: bytes, as: UTF8.self).split(separator: " ").dropFirst().first ?? "")
        {
            add("process_resident_memory_bytes", .gauge, "Resident memory.", pages * Int(getpagesize()))
        }
        if let start = Self.processStart {
            add("process_start_time_seconds", .gauge, "Start time, in seconds since 1970.", start)
        }
    }

    private static let processStart: Double? = {
        // The second field is the program name in parentheses; it may contain spaces and parentheses.
        guard case .success(let process) = BoundedFile.read("/proc/self/stat", upTo: 4096),
            let fields = process.lastIndex(of: UInt8(ascii: ")")).map({
                String(decoding: process[$0...], as: UTF8.self).split(separator: " ")
            }),
            fields.count > 20, let ticks = Double(fields[20])
        else { return nil }
        let uptime = Double(microseconds(of: CLOCK_BOOTTIME)) / 1e6
        return secondsSince1970() - uptime + ticks
            / Double(sysconf(Int32(_SC_CLK_TCK)))
    }()
}
