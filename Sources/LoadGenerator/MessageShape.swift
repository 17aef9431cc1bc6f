// SPDX-License-Identifier: Apache-2.0

/// A common kind of message of about the given size, filled with random words or bytes. Lines are below 80 bytes.
enum MessageShape {
    case text(Int)
    /// multipart/alternative with plain text and HTML.
    case alternative(Int)
    case html(Int)
    /// A text and a base64 file.
    case attachment(Int)
    /// A message/rfc822 part.
    case forwarded(Int)

    /// The share of each shape; `realistic` makes four messages of each.
    private static let common: [(share: Double, shape: MessageShape)] = [
        (0.30, .text(1_200)), (0.20, .text(4_000)), (0.25, .alternative(12_000)), (0.12, .html(30_000)),
        (0.08, .attachment(120_000)), (0.04, .forwarded(15_000)), (0.01, .attachment(1_000_000)),
    ]

    static func realistic(using random: inout SplitMix64) -> [(share: Double, content: [UInt8])] {
        common.flatMap { share, shape in
            (0..<4).map { _ in (share / 4, shape.content(using: &random)) }
        }
    }

    /// The header from the subject on, and the body.
    func content(using random: inout SplitMix64) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.append("Subject: ")
        Self.writeWords(5, to: &bytes, using: &random)
        bytes.append("\r\nMIME-Version: 1.0\r\n")
        writePart(to: &bytes, using: &random)
        return bytes
    }

    private func writePart(to bytes: inout [UInt8], using random: inout SplitMix64) {
        switch self {
        case .text(let size):
            bytes.append("Content-Type: text/plain; charset=utf-8\r\n\r\n")
            Self.writeText(size, to: &bytes, using: &random)
        case .html(let size):
            bytes.append(
                "Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n")
            bytes.append("<html><body style=3D\"font-family: sans-serif\">\r\n")
            let end = bytes.count + size
            while bytes.count < end {
                bytes.append("<p class=3D\"paragraph\">")
                Self.writeWords(6, to: &bytes, using: &random)
                bytes.append("=\r\n")
                Self.writeWords(8, to: &bytes, using: &random)
                bytes.append("</p>\r\n")
            }
            bytes.append("</body></html>\r\n")
        case .alternative(let size):
            Self.writeMultipart("alternative", [.text(size / 3), .html(size * 2 / 3)], to: &bytes, using: &random)
        case .attachment(let size):
            bytes.append("Content-Type: multipart/mixed; boundary=\"=_file\"\r\n\r\n--=_file\r\n")
            MessageShape.text(800).writePart(to: &bytes, using: &random)
            bytes.append("--=_file\r\nContent-Type: application/octet-stream; name=\"report.bin\"\r\n")
            bytes.append("Content-Disposition: attachment; filename=\"report.bin\"\r\n")
            bytes.append("Content-Transfer-Encoding: base64\r\n\r\n")
            let end = bytes.count + size
            while bytes.count < end {
                for _ in 0..<76 { bytes.append(Self.base64[random.next(below: 64)]) }
                bytes.append("\r\n")
            }
            bytes.append("--=_file--\r\n")
        case .forwarded(let size):
            bytes.append("Content-Type: multipart/mixed; boundary=\"=_forward\"\r\n\r\n--=_forward\r\n")
            MessageShape.text(300).writePart(to: &bytes, using: &random)
            bytes.append("--=_forward\r\nContent-Type: message/rfc822\r\n\r\n")
            bytes.append("From: friend@example.net\r\nTo: other@example.net\r\nSubject: ")
            Self.writeWords(4, to: &bytes, using: &random)
            bytes.append("\r\nMIME-Version: 1.0\r\n")
            MessageShape.alternative(size).writePart(to: &bytes, using: &random)
            bytes.append("--=_forward--\r\n")
        }
    }

    private static func writeMultipart(
        _ subtype: String, _ parts: [MessageShape], to bytes: inout [UInt8], using random: inout SplitMix64
    ) {
        bytes.append(contentsOf: "Content-Type: multipart/\(subtype); boundary=\"=_\(subtype)\"\r\n\r\n".utf8)
        for part in parts {
            bytes.append(contentsOf: "--=_\(subtype)\r\n".utf8)
            part.writePart(to: &bytes, using: &random)
        }
        bytes.append(contentsOf: "--=_\(subtype)--\r\n".utf8)
    }

    private static func writeText(_ size: Int, to bytes: inout [UInt8], using random: inout SplitMix64) {
        let end = bytes.count + size
        while bytes.count < end {
            // Some lines start with a dot, to test dot-stuffing.
            if random.next(below: 50) == 0 { bytes.append(".") }
            writeWords(7, to: &bytes, using: &random)
            bytes.append("\r\n")
        }
    }

    private static func writeWords(_ count: Int, to bytes: inout [UInt8], using random: inout SplitMix64) {
        for index in 0..<count {
            if index > 0 { bytes.append(" ") }
            bytes.append(contentsOf: words[random.next(below: words.count)])
        }
    }

    private static let base64 = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)

    private static let words = [
        "please", "find", "the", "report", "for", "last", "month", "attached", "and", "tell", "me", "what", "you",
        "think", "of",
        "our", "meeting", "on", "tuesday", "has", "been", "moved", "to", "thursday", "at", "ten", "kind", "regards",
        "invoice",
        "order", "number", "delivery", "address", "customer", "team", "project", "plan", "review", "question", "answer",
        "with",
        "thanks", "again", "soon", "next", "week", "server", "update", "budget", "contract", "office", "river",
        "garden", "train",
    ].map { Array($0.utf8) }
}
