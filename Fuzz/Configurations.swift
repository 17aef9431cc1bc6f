// SPDX-License-Identifier: Apache-2.0
internal import Settings

extension Target {
    /// Reading must end with a configuration, or with faults that say where they are.
    ///
    /// The input is a weir.yaml.
    static let configuration = Target(name: "configuration") { input in
        let bytes = Array(input)
        // libyaml ends lines at CR, NEL, LS and PS too.
        let lines = bytes.count { $0 < 0x20 || $0 == 0x85 || $0 == 0xa8 || $0 == 0xa9 } + 1
        func check(_ fault: ConfigurationFault) {
            precondition(!fault.message.isEmpty)
            guard fault.file == "weir.yaml" else { return }
            guard let line = fault.line else { preconditionFailure("\(fault) has no line") }
            precondition(1...lines + 1 ~= line, "\(fault)")
            guard let column = fault.column else {
                precondition(fault.message == "not UTF-8", "\(fault) has no column")
                return
            }
            precondition(1...bytes.count + 2 ~= column, "\(fault)")
        }
        switch ConfigurationReader.read(bytes, file: "weir.yaml") {
        case .success(let outcome):
            for warning in outcome.warnings where !warning.message.hasPrefix("no limits") { check(warning) }
        case .failure(let faults):
            precondition(!faults.all.isEmpty)
            faults.all.forEach(check)
        }
    }
}
