// SPDX-License-Identifier: Apache-2.0
internal import HTTPTypes
internal import Hummingbird
internal import Limits

/// The web page of the admin listener. Its files are in `Page/`, and the build embeds them in the program.
///
/// Security: the files hold no data of the service. On loopback they need no token, and the page asks the
/// user for it.
enum AdminPage {
    private struct File: Sendable {
        let path: String
        let type: String
        let content: ByteBuffer

        init(_ path: String, type: String, _ content: [UInt8]) {
            self.path = path
            self.type = "\(type); charset=utf-8"
            self.content = ByteBuffer(bytes: content)
        }
    }

    private static let files = [
        File("/", type: "text/html", PackageResources.page_html),
        File("/page.css", type: "text/css", PackageResources.page_css),
        File("/format.js", type: "text/javascript", PackageResources.format_js),
        File("/dom.js", type: "text/javascript", PackageResources.dom_js),
        File("/charts.js", type: "text/javascript", PackageResources.charts_js),
        File("/actions.js", type: "text/javascript", PackageResources.actions_js),
        File("/now.js", type: "text/javascript", PackageResources.now_js),
        File("/key.js", type: "text/javascript", PackageResources.key_js),
        File("/page.js", type: "text/javascript", PackageResources.page_js),
    ]

    private static let contentSecurityPolicy = [
        "default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "base-uri 'none'",
        "form-action 'none'", "frame-ancestors 'none'",
    ].joined(separator: "; ")

    static func contains(_ path: String) -> Bool { files.contains { $0.path == path } }

    static func addRoutes(to router: Router<AdminContext>) {
        for file in files {
            router.get(.init(file.path)) { _, _ in
                Response(status: .ok, headers: headers(type: file.type), body: .init(byteBuffer: file.content))
            }
        }
    }

    private static func headers(type: String) -> HTTPFields {
        [
            .contentType: type, .cacheControl: "no-store", .contentSecurityPolicy: contentSecurityPolicy,
            .xContentTypeOptions: "nosniff", .init("Referrer-Policy")!: "no-referrer",
        ]
    }
}
