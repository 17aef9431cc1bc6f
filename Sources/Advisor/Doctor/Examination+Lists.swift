// SPDX-License-Identifier: Apache-2.0
import Settings
import Wire

/// Reads restriction lists as smtpd does, and writes them anew.
extension Examination {
    /// An element of a list as written, and what smtpd evaluates for it, with variables and restriction classes
    /// expanded. In a class behind warn_if_reject, that word is before each restriction, as smtpd warns about them all.
    typealias ListElement = (written: RestrictionList.Element, expanded: [RestrictionList.Element])

    func list(_ name: String, in service: PostfixSetup.Service?) -> [ListElement] {
        var isWarned = false
        return RestrictionList(setup.raw(name, in: service)).elements.map { element in
            let expanded = expanded(element, isWarned: isWarned, in: service, depth: 0)
            isWarned = expanded.last?.name == RestrictionList.warning
            return (element, expanded)
        }
    }

    /// What smtpd evaluates for a list that a table returns.
    func expanded(_ result: String, in service: PostfixSetup.Service?) -> [RestrictionList.Element] {
        RestrictionList(result).elements.flatMap { expanded($0, isWarned: false, in: service, depth: 0) }
    }

    /// - Parameter isWarned: whether warn_if_reject is directly before the element.
    private func expanded(
        _ element: RestrictionList.Element, isWarned: Bool, in service: PostfixSetup.Service?, depth: Int
    ) -> [RestrictionList.Element] {
        let elements = RestrictionList(setup.expanded(element.text, in: service)).elements
        guard depth < 10 else { return elements }
        let classes = Set(classNames(in: service))
        var result: [RestrictionList.Element] = []
        func isBehindWarning() -> Bool { result.last.map { $0.name == RestrictionList.warning } ?? isWarned }
        for element in elements {
            guard classes.contains(element.text) else {
                result.append(element)
                continue
            }
            let isWarnedClass = isBehindWarning()
            for inner in RestrictionList(setup.value(element.text, in: service)).elements {
                if isWarnedClass, inner.name != RestrictionList.warning, !isBehindWarning() {
                    result.append(RestrictionList.Element(text: RestrictionList.warning))
                }
                result += expanded(inner, isWarned: isBehindWarning(), in: service, depth: depth + 1)
            }
        }
        return result
    }

    func classNames(in service: PostfixSetup.Service?) -> [String] {
        setup.words("smtpd_restriction_classes", in: service)
    }

    /// The policy servers of these elements that are Weir.
    func references(
        _ elements: [RestrictionList.Element], in service: PostfixSetup.Service?
    ) -> [ServerReference] {
        elements.filter { isOurs($0, in: service) }.map { ServerReference($0.argument) }
    }

    /// Whether an element asks Weir.
    func isOurs(_ element: RestrictionList.Element, in service: PostfixSetup.Service?) -> Bool {
        element.name == "check_policy_service"
            && isOurs(ServerReference(element.argument).address, policyListeners, in: service)
    }

    /// Whether an address is one of our listeners. Paths may also be below the queue directory; whether a chrooted
    /// service can reach them is checked elsewhere.
    func isOurs(_ address: String, _ own: [Endpoint], in service: PostfixSetup.Service?) -> Bool {
        guard let wanted = ListenerAddress(address, queue: queue) else { return false }
        return own.contains { endpoint in
            let listener = ListenerAddress(endpoint)
            if case .unix(let path) = wanted, listener == .unix(path: queue + path) { return true }
            return listener.answers(wanted)
        }
    }

    func asks(_ name: String, in service: PostfixSetup.Service?) -> Bool {
        list(name, in: service).contains { !references($0.expanded, in: service).isEmpty }
    }

    // MARK: Lists without Weir

    /// A part of a new list.
    private struct Part {
        let text: String
        /// Whether it can permit or refuse everything. If so, Weir must come before it.
        let isEnd: Bool
        /// Whether its last word is warn_if_reject, and so is about the next part.
        let endsInWarning: Bool
    }

    /// The list without requests to Weir, and without each warn_if_reject that is about one. An element that has such a
    /// request beside others is replaced by the others.
    ///
    /// - Parameter kept: the number of requests that stay.
    private func parts(of name: String, keeping kept: Int, in service: PostfixSetup.Service) -> [Part] {
        let elements = list(name, in: service)
        let underLoad = underLoad.list(name, in: service)
        let removed = positionsOfOurs(in: elements.flatMap(\.expanded), after: kept, in: service)
        var position = 0
        return zip(elements, underLoad).flatMap { element, elementUnderLoad -> [Part] in
            let positions = position..<position + element.expanded.count
            position = positions.upperBound
            guard !positions.allSatisfy({ !removed.contains($0) }) else {
                let ends = [element, elementUnderLoad].contains { RestrictionList.end(of: $0.expanded[...]) != nil }
                return [
                    Part(
                        text: element.written.text, isEnd: ends,
                        endsInWarning: element.expanded.last?.name == RestrictionList.warning)
                ]
            }
            let rest = zip(positions, element.expanded).filter { !removed.contains($0.0) }.map(\.1)
            // What else is in the same variable or class stays together, behind Weir.
            let ends = RestrictionList.end(of: rest[...]) != nil
            return rest.map {
                Part(text: $0.text, isEnd: ends, endsInWarning: $0.name == RestrictionList.warning)
            }
        }
    }

    /// The positions of requests to Weir but the first ones, and of each warn_if_reject directly before one.
    private func positionsOfOurs(
        in flat: [RestrictionList.Element], after kept: Int, in service: PostfixSetup.Service
    ) -> Set<Int> {
        var positions: Set<Int> = []
        for own in flat.indices.filter({ isOurs(flat[$0], in: service) }).dropFirst(kept) {
            let warnings = flat[..<own].reversed().prefix { $0.name == RestrictionList.warning }.count
            positions.formUnion(own - warnings...own)
        }
        return positions
    }

    // MARK: Fixes

    /// The commands that make a list ask Weir before all permits, and accept mail while Weir is unreachable.
    ///
    /// - Parameter context: the policy_context that this service alone is to send; nil to keep what it sends.
    func fixCommands(_ name: String, in service: PostfixSetup.Service, context wanted: String? = nil) -> [Change] {
        let own = list(name, in: service).first { !references($0.expanded, in: service).isEmpty }
        var commands: [Change] = []
        let reference = own.flatMap { references($0.expanded, in: service).first }
        var written = own?.written.text ?? ""
        let isShared = own.map { $0.expanded.count > 1 } ?? false
        if own == nil || wanted != nil || isShared || reference.map({ needsFix($0, in: service) }) ?? true {
            let context = wanted ?? reference?.attributes["policy_context"]
            let definition = definition(instead: reference, context: context, in: service)
            let variable = variable(
                "weir_policy" + (context.map { "_\($0.filter { $0.isLetter || $0.isNumber })" } ?? ""), for: definition)
            if setup.raw(variable) != definition { commands.append(.parameter(variable, value: definition)) }
            written = "$\(variable)"
        }
        let parts = parts(of: name, keeping: 0, in: service)
        var place = parts.firstIndex(where: \.isEnd) ?? parts.count
        // A warn_if_reject there is about what follows, not about Weir.
        while place > 0, parts[place - 1].endsInWarning { place -= 1 }
        var texts = parts.map(\.text)
        texts.insert(written, at: place)
        return commands + setList(name, to: texts, in: service, beside: commands, alone: wanted != nil)
    }

    /// The request to Weir, with what was chosen for the one that it replaces.
    private func definition(
        instead reference: ServerReference?, context: String?, in service: PostfixSetup.Service
    ) -> String {
        var attributes = reference?.attributes ?? [:]
        let timeout = attributes.removeValue(forKey: "timeout")
        let isShort = timeout.flatMap(Self.seconds).map { $0 <= Self.longestTimeout } ?? false
        var texts = [address(for: service, instead: reference), "timeout=\(isShort ? timeout! : "10s")"]
        if let action = attributes.removeValue(forKey: "default_action") {
            texts.append(Self.attribute("default_action", action))
        } else if reference.map({ lacksDefaultAction($0, in: service) }) ?? true {
            texts.append("default_action=DUNNO")
        }
        attributes["policy_context"] = nil
        if let context { texts.append(Self.attribute("policy_context", context)) }
        texts += attributes.sorted { $0.key < $1.key }.map(Self.attribute)
        return "check_policy_service { \(texts.joined(separator: ", ")) }"
    }

    private static func attribute(_ name: String, _ value: String) -> String {
        value.contains { " \t,".contains($0) } ? "{ \(name) = \(value) }" : "\(name)=\(value)"
    }

    /// The commands that make a list ask Weir only where it does so first.
    func repetitionCommands(_ name: String, in service: PostfixSetup.Service) -> [Change] {
        setList(name, to: parts(of: name, keeping: 1, in: service).map(\.text), in: service)
    }

    /// The elements of a list without requests to Weir.
    func textsWithoutWeir(of name: String, in service: PostfixSetup.Service) -> [String] {
        parts(of: name, keeping: 0, in: service).map(\.text)
    }

    /// Sets a list where it is set now, or for this service alone. A value in master.cf can't have spaces, so variables
    /// of main.cf stand for elements with braces.
    func setList(
        _ name: String, to texts: [String], in service: PostfixSetup.Service, beside others: [Change] = [],
        alone: Bool = false
    ) -> [Change] {
        guard alone || service.overrides[name] != nil else {
            return [.parameter(name, value: texts.joined(separator: ", "))]
        }
        var definitions: [Change] = []
        let plain = texts.map { text in
            let words = RestrictionList.words(text)
            guard words.contains(where: { $0.contains(" ") || $0.contains("\t") }) else { return text }
            let variable = variable("weir_restriction", for: text, beside: others + definitions)
            definitions.append(.parameter(variable, value: text))
            return "$\(variable)"
        }
        let list = override(name, with: plain.joined(separator: ", "), in: service)
        return definitions.filter { !isInForce($0) } + [list]
    }

    func needsFix(_ reference: ServerReference, in service: PostfixSetup.Service) -> Bool {
        let timeout = reference.attributes["timeout"] ?? setup.value("smtpd_policy_service_timeout", in: service)
        return lacksDefaultAction(reference, in: service) || Self.seconds(timeout) ?? 0 > Self.longestTimeout
            || pathInChroot(reference.address, policyListeners, of: service) != nil
    }

    private func address(for service: PostfixSetup.Service, instead reference: ServerReference?) -> String {
        if let reference, pathInChroot(reference.address, policyListeners, of: service) == nil {
            return reference.address
        }
        return reachable(policyListeners, from: service) ?? "inet:127.0.0.1:\(Self.defaultPolicyPort)"
    }
}
