// SPDX-License-Identifier: Apache-2.0
// Runs a target: with libFuzzer if it was built for that (Fuzz/run), else with inputs of its own making.
internal import Foundation
internal import Glibc

/// FUZZ_TARGET names the target. The arguments are as for libFuzzer.
private let target: Target = {
    let name = ProcessInfo.processInfo.environment["FUZZ_TARGET"] ?? ""
    guard let target = Target.all.first(where: { $0.name == name }) else {
        print("Fuzz: FUZZ_TARGET must be one of \(Target.all.map(\.name).joined(separator: " "))")
        exit(64)
    }
    return target
}()

#if FUZZER
    @_cdecl("LLVMFuzzerTestOneInput")
    public func runInput(_ data: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
        target.run(UnsafeRawBufferPointer(start: data, count: count))
        return 0
    }
#else
    /// Reads files once. From folders, it reads every file, then mutations of them.
    @main enum Fuzz {
        static func main() throws {
            var (runs, seed, words): (Int, UInt64, [[UInt8]]) = (0, 1, [])
            var seeds: [[UInt8]] = []
            for argument in CommandLine.arguments.dropFirst() {
                let value = String(argument.drop { $0 != "=" }.dropFirst())
                if argument.hasPrefix("-runs=") {
                    runs = Int(value) ?? 0
                } else if argument.hasPrefix("-seed=") {
                    seed = UInt64(value) ?? 1
                } else if argument.hasPrefix("-dict=") {
                    words = try Mutator.words(ofDictionary: Array(Data(contentsOf: URL(fileURLWithPath: value))))
                } else {
                    seeds += try Self.files(at: argument)
                }
            }
            CrashedInput.watch()
            for input in seeds { Self.run(input) }
            var mutator = Mutator(seeds: seeds, words: words, seed: seed)
            for _ in 0..<runs { Self.run(mutator.next()) }
            print("\(target.name): \(seeds.count) seeds, \(runs) mutations")
        }

        private static func run(_ input: [UInt8]) {
            // Exactly as large as the input, and never null.
            let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: input.count, alignment: 1)
            defer { bytes.deallocate() }
            bytes.copyBytes(from: input)
            CrashedInput.current = UnsafeRawBufferPointer(bytes)
            target.run(UnsafeRawBufferPointer(bytes))
        }

        private static func files(at path: String) throws -> [[UInt8]] {
            var isFolder: ObjCBool = false
            guard FileManager.default.fileExists(atPath: path, isDirectory: &isFolder), isFolder.boolValue else {
                return [Array(try Data(contentsOf: URL(fileURLWithPath: path)))]
            }
            // Sorted, so that a seed makes the same inputs everywhere.
            return try FileManager.default.contentsOfDirectory(atPath: path).sorted().flatMap {
                try files(at: "\(path)/\($0)")
            }
        }
    }

    /// Writes the input of a crash to a file.
    private enum CrashedInput {
        nonisolated(unsafe) static var current = UnsafeRawBufferPointer(start: nil, count: 0)
        nonisolated(unsafe) private static var path: UnsafeMutablePointer<CChar>?

        static func watch() {
            path = strdup(".build/crash-\(target.name)")
            for number in [SIGILL, SIGTRAP, SIGSEGV, SIGBUS, SIGABRT, SIGFPE] {
                signal(number) { number in
                    // Only calls that are safe in a signal handler.
                    let file = open(CrashedInput.path!, O_WRONLY | O_CREAT | O_TRUNC, 0o644)
                    _ = write(file, CrashedInput.current.baseAddress, CrashedInput.current.count)
                    signal(number, SIG_DFL)
                    raise(number)
                }
            }
        }
    }
#endif
