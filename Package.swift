// swift-tools-version: 6.2
// SPDX-License-Identifier: Apache-2.0
import PackageDescription

let strict: [SwiftSetting] = [
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("ExistentialAny"),
    // Small functions of one target are inlined into others, as if all were one.
    .unsafeFlags(["-cross-module-optimization"], .when(configuration: .release)),
]

/// For `Policy`, `Messages` and what they are built on, except `Settings` and `Report`. Nothing there is called back in
/// the middle of a change, and checking that at run time takes a tenth of the time. Debug builds check it.
let singleThreaded = strict + [.unsafeFlags(["-enforce-exclusivity=unchecked"], .when(configuration: .release))]

/// `weir` contains Swift's libraries: it runs on machines without the toolchain, and takes a tenth less memory at rest.
/// The compiler does not link the archives that Foundation's archive needs. The default linker warns of unused ones.
let selfContained: [LinkerSetting] =
    [
        .unsafeFlags(["-static-stdlib", "-use-ld=lld"], .when(platforms: [.linux], configuration: .release))
    ]
    + ["CoreFoundation", "_FoundationICU", "_FoundationCShims", "_FoundationCollections"].map {
        .linkedLibrary($0, .when(platforms: [.linux], configuration: .release))
    }

/// Symbols are bound at the start, so that the table of their addresses is read-only afterwards (full RELRO).
let hardened: [LinkerSetting] = [.unsafeFlags(["-Xlinker", "-z", "-Xlinker", "now"], .when(platforms: [.linux]))]

/// glibc checks buffers only in optimised code. Control-flow enforcement (CET) would need marks in the code of Swift,
/// too. Its compiler writes none, and the linker then marks the program as without.
let hardenedC: [CSetting] = [
    .unsafeFlags(["-fstack-protector-strong"]), .define("_FORTIFY_SOURCE", to: "2", .when(configuration: .release)),
]

let package = Package(
    name: "weir",
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
        .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.0"),
        .package(url: "https://github.com/apple/swift-nio-extras", from: "1.35.0"),
        .package(url: "https://github.com/groue/GRDB.swift", from: "7.10.0"),
        .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", from: "0.2.0"),
        .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.0"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.0"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
    ],
    targets: [
        .systemLibrary(
            name: "CPCRE2", pkgConfig: "libpcre2-8", providers: [.apt(["libpcre2-dev"])]),
        .systemLibrary(
            name: "CVectorscan", pkgConfig: "libhs", providers: [.apt(["libhyperscan-dev"])]),
        .systemLibrary(name: "CHiredis", providers: [.apt(["libhiredis-dev"])]),
        .systemLibrary(name: "CIntrinsics"),
        .systemLibrary(name: "CLinux"),
        .target(name: "CSandbox", cSettings: hardenedC),
        .target(name: "Patterns", dependencies: ["CPCRE2"], swiftSettings: singleThreaded),
        .target(name: "MailSyntax", dependencies: ["CIntrinsics"], swiftSettings: singleThreaded),
        .target(name: "Decoding", dependencies: ["CIntrinsics", "MailSyntax"], swiftSettings: singleThreaded),
        .target(
            name: "Rules", dependencies: ["CVectorscan", "MailSyntax", "Patterns"],
            swiftSettings: singleThreaded),
        .target(
            name: "Filter", dependencies: ["Decoding", "Limits", "MailSyntax", "Patterns", "Rules"],
            swiftSettings: singleThreaded),
        .target(
            name: "Wire",
            dependencies: ["CIntrinsics", .product(name: "NIOCore", package: "swift-nio")],
            swiftSettings: singleThreaded),
        .target(
            name: "Limits",
            dependencies: [
                "CIntrinsics", "MailSyntax", "Patterns", "Sharing",
                .product(name: "DequeModule", package: "swift-collections"),
            ],
            swiftSettings: singleThreaded),
        .target(
            name: "Sharing",
            dependencies: [.product(name: "DequeModule", package: "swift-collections")],
            resources: [.embedInCode("library.lua")],
            swiftSettings: singleThreaded),
        .target(
            name: "Storage",
            dependencies: [
                "Limits", "Sharing",
                .product(name: "GRDB", package: "GRDB.swift"),
                .product(name: "GRDBSQLite", package: "GRDB.swift"),
            ],
            swiftSettings: singleThreaded),
        .target(
            name: "Loop",
            dependencies: [
                "CLinux", "Wire",
                .product(name: "DequeModule", package: "swift-collections"),
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio"),
            ],
            swiftSettings: singleThreaded),
        // The client of the engine: the Valkey or Redis server through which hosts share limits.
        .target(
            name: "Engine",
            dependencies: ["CHiredis", "Loop", "Sharing", .product(name: "NIOCore", package: "swift-nio")],
            swiftSettings: singleThreaded),
        .target(
            name: "Settings",
            dependencies: [
                "Filter", "Limits", "MailSyntax", "Patterns", "Rules", "Sharing", "Wire",
                .product(name: "Yams", package: "Yams"),
            ],
            swiftSettings: strict),
        .target(
            name: "Report",
            dependencies: [
                "CLinux", "CSandbox", "Settings", "Limits", "MailSyntax",
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio"),
            ],
            swiftSettings: strict),
        .target(
            name: "AdminAPI",
            dependencies: [
                "Settings", "Limits", "Loop", "Report", "Wire",
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ],
            swiftSettings: strict),
        .target(
            name: "Policy",
            dependencies: [
                "CLinux", "Engine", "Settings", "Limits", "Loop", "MailSyntax", "Report", "Rules", "Sharing",
                "Storage", "Wire",
                .product(name: "NIOCore", package: "swift-nio"),
            ],
            swiftSettings: singleThreaded),
        .target(
            name: "Exchange",
            dependencies: [
                "Engine", "Limits", "Loop", "Policy", "Report", "Settings", "Sharing",
                .product(name: "NIOCore", package: "swift-nio"),
            ],
            swiftSettings: strict),
        .target(
            name: "Messages",
            dependencies: [
                "Decoding", "Settings", "Filter", "Limits", "Loop", "MailSyntax", "Patterns", "Policy", "Report",
                "Rules", "Wire",
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio"),
            ],
            swiftSettings: singleThreaded),
        .target(
            name: "Service",
            dependencies: [
                "AdminAPI", "CLinux", "CSandbox", "Exchange", "Settings", "Filter", "Limits", "Loop", "Messages",
                "Policy",
                "Report", "Sharing", "Wire",
                .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "HummingbirdCore", package: "hummingbird"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOExtras", package: "swift-nio-extras"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "UnixSignals", package: "swift-service-lifecycle"),
            ],
            resources: [.embedInCode("Admin/Page")],
            swiftSettings: strict),
        .target(
            name: "LoadGenerator",
            dependencies: [
                .product(name: "Histogram", package: "hdrhistogram-swift"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ],
            swiftSettings: strict),
        .target(
            name: "Advisor",
            dependencies: [
                "Engine", "Filter", "Limits", "Patterns", "Report", "Settings", "Sharing", "Wire",
                .product(name: "NIOCore", package: "swift-nio"),
            ],
            swiftSettings: strict),
        .executableTarget(
            name: "weir",
            dependencies: [
                "AdminAPI", "Advisor", "CLinux", "Engine", "Settings", "Filter", "Limits", "LoadGenerator", "Loop",
                "Messages", "Patterns", "Report", "Rules", "Service", "Sharing", "Wire",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "UnixSignals", package: "swift-service-lifecycle"),
            ],
            resources: [.embedInCode("Page")],
            swiftSettings: strict, linkerSettings: hardened + selfContained),
        .target(
            name: "CAllocationCount", path: "Benchmarks/rules/Sources/CAllocationCount"),
        .executableTarget(
            name: "RulesBenchmark",
            dependencies: [
                "CAllocationCount", "CPCRE2", "CVectorscan", "Filter", "MailSyntax", "Rules",
            ],
            path: "Benchmarks/rules/Sources/RulesBenchmark", swiftSettings: strict, linkerSettings: selfContained),
        .target(name: "SimulatedMachine", path: "Tests/SimulatedMachine"),
        .executableTarget(
            name: "Simulator",
            dependencies: [
                "Limits", "Loop", "Policy", "Report", "Settings", "SimulatedMachine",
                .product(name: "NIOCore", package: "swift-nio"),
            ],
            path: "Tests/Simulator", exclude: ["faults"], swiftSettings: strict),
        .target(
            name: "SharedSimulation", dependencies: ["Sharing"], path: "Tests/SharedSimulation",
            exclude: ["library-1.lua"], swiftSettings: strict),
        .executableTarget(
            name: "SharingSimulator", dependencies: ["SharedSimulation", "Sharing"], path: "Tests/SharingSimulator",
            swiftSettings: strict),
        .executableTarget(
            name: "Fuzz",
            dependencies: [
                "AdminAPI", "Advisor", "Decoding", "Limits", "MailSyntax", "Patterns", "Report", "Rules",
                "Settings", "Sharing", "Storage", "Wire",
                .product(name: "GRDBSQLite", package: "GRDB.swift"),
                .product(name: "HummingbirdCore", package: "hummingbird"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOEmbedded", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
            ],
            path: "Fuzz", exclude: ["campaign", "results.md", "dictionaries", "run", "seeds"], swiftSettings: strict),
        .testTarget(
            name: "DecodingTests", dependencies: ["Decoding"], resources: [.copy("Fixtures")], swiftSettings: strict),
        .testTarget(
            name: "LoadGeneratorTests",
            dependencies: [
                "LoadGenerator",
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOEmbedded", package: "swift-nio"),
            ],
            resources: [.copy("Fixtures")],
            swiftSettings: strict),
        .testTarget(
            name: "FilterTests", dependencies: ["Decoding", "Filter", "Limits", "Patterns", "Rules"],
            swiftSettings: strict),
        .target(
            name: "LedgerStoreConformance", dependencies: ["Limits"], path: "Tests/LedgerStoreConformance",
            swiftSettings: strict),
        .testTarget(
            name: "LimitsTests", dependencies: ["LedgerStoreConformance", "Limits", "Patterns", "Sharing", "Storage"],
            swiftSettings: strict),
        .testTarget(name: "MailSyntaxTests", dependencies: ["CIntrinsics", "MailSyntax"], swiftSettings: strict),
        .testTarget(name: "PatternsTests", dependencies: ["Patterns"], swiftSettings: strict),
        .testTarget(name: "RulesTests", dependencies: ["MailSyntax", "Patterns", "Rules"], swiftSettings: strict),
        .testTarget(
            name: "ServiceTests",
            dependencies: [
                "AdminAPI", "Engine", "Exchange", "Settings", "Filter", "Limits", "Loop", "MailSyntax", "Messages",
                "Policy", "Report", "Rules", "Sharing", "Wire",
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio"),
            ],
            resources: [.copy("Fixtures")],
            swiftSettings: strict),
        .testTarget(name: "SharingTests", dependencies: ["SharedSimulation", "Sharing"], swiftSettings: strict),
        .testTarget(
            name: "StorageTests",
            dependencies: [
                "LedgerStoreConformance", "Limits", "Sharing", "Storage",
                .product(name: "GRDB", package: "GRDB.swift"),
            ],
            swiftSettings: strict),
        .testTarget(
            name: "WireTests",
            dependencies: ["CIntrinsics", "Wire", .product(name: "NIOCore", package: "swift-nio")],
            resources: [.copy("Fixtures")],
            swiftSettings: strict),
    ],
    swiftLanguageModes: [.v6]
)
