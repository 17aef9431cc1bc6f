// SPDX-License-Identifier: Apache-2.0
import Glibc

/// The bytes of arguments, given in the order of the command line. Swift's strings replace invalid UTF-8.
func rawArguments(_ texts: [String]) -> [[UInt8]] {
    var rest = UnsafeBufferPointer(start: CommandLine.unsafeArgv, count: Int(CommandLine.argc))[...]
    return texts.reversed().map { text in
        guard let index = rest.lastIndex(where: { $0.map { String(cString: $0) == text } ?? false }),
            let raw = rest[index]
        else { return Array(text.utf8) }
        rest = rest[..<index]
        return Array(UnsafeRawBufferPointer(start: raw, count: strlen(raw)))
    }.reversed()
}
