// SPDX-License-Identifier: Apache-2.0
internal import Advisor
internal import Settings

extension Target {
    /// Whatever is imported must be a valid configuration. Remarks must be about lines of the input.
    ///
    /// The first byte chooses postfwd or anvil; the rest is the file.
    static let importedLimits = Target(name: "import") { input in
        var choices = Choices(input)
        let isPostfwd = choices.byte() & 1 == 0
        let text = String(decoding: choices.rest, as: UTF8.self)
        let imported = isPostfwd ? ImportedLimits(postfwd: text) : ImportedLimits(anvil: text)
        let lines = choices.rest.count { $0 == 0x0a } + 1
        for remark in imported.leftOut + imported.notes {
            precondition(0...lines ~= remark.line && !remark.text.isEmpty, remark.text)
        }
        if case .failure(let faults) = ConfigurationReader.read(Array(imported.yaml(from: "x").utf8), file: "weir.yaml")
        {
            preconditionFailure(faults.description)
        }
    }
}
