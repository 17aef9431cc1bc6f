// swift-tools-version: 6.2
import PackageDescription

let strict: [SwiftSetting] = [
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("ExistentialAny"),
]

let package = Package(
    name: "weir",
    products: [.executable(name: "weir", targets: ["weir"])],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.0"),
    ],
    targets: [
        .systemLibrary(
            name: "CPCRE2", pkgConfig: "libpcre2-8", providers: [.apt(["libpcre2-dev"])]),
        .systemLibrary(
            name: "CVectorscan", pkgConfig: "libhs", providers: [.apt(["libvectorscan-dev"])]),
        .target(name: "Patterns", dependencies: ["CPCRE2"], swiftSettings: strict),
        .target(name: "MailSyntax", swiftSettings: strict),
        .target(
            name: "Rules", dependencies: ["CVectorscan", "MailSyntax", "Patterns"],
            swiftSettings: strict),
        .target(
            name: "Filter", dependencies: ["MailSyntax", "Patterns", "Rules"],
            swiftSettings: strict),
        .executableTarget(
            name: "weir",
            dependencies: [
                "Filter", "MailSyntax", "Rules",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Yams", package: "Yams"),
            ],
            swiftSettings: strict),
        .target(
            name: "CAllocationCount", path: "Benchmarks/rules/Sources/CAllocationCount"),
        .executableTarget(
            name: "RulesBenchmark",
            dependencies: [
                "CAllocationCount", "CPCRE2", "CVectorscan", "Filter", "MailSyntax", "Rules",
            ],
            path: "Benchmarks/rules/Sources/RulesBenchmark", swiftSettings: strict),
        .testTarget(name: "PatternsTests", dependencies: ["Patterns"], swiftSettings: strict),
        .testTarget(
            name: "FilterTests", dependencies: ["Filter", "MailSyntax", "Rules"],
            swiftSettings: strict),
        .testTarget(name: "MailSyntaxTests", dependencies: ["MailSyntax"], swiftSettings: strict),
        .testTarget(name: "RulesTests", dependencies: ["Patterns", "Rules"], swiftSettings: strict),
    ],
    swiftLanguageModes: [.v6]
)
