// swift-tools-version:5.9
import PackageDescription

let package = Package(
    name: "TinyNet",
    platforms: [.iOS(.v17), .macOS(.v14)],
    products: [
        .library(name: "TinyNet", targets: ["TinyNet"]),
    ],
    dependencies: [
        // The version the model file was made for.
        .package(url: "https://github.com/pytorch/executorch.git", branch: "swiftpm-1.5.1"),
    ],
    targets: [
        .target(
            name: "TinyNet",
            dependencies: [
                .product(name: "executorch", package: "executorch"),
                .product(name: "backend_xnnpack", package: "executorch"),
                .product(name: "kernels_optimized", package: "executorch"),
                .product(name: "kernels_quantized", package: "executorch"),
            ],
            resources: [
                .copy("Resources"),
            ],
            // Backends and kernels register themselves when they are loaded: nothing calls them by name.
            linkerSettings: [
                .unsafeFlags(["-Xlinker", "-all_load"]),
            ]
        ),
        .testTarget(
            name: "TinyNetTests",
            dependencies: ["TinyNet"],
            resources: [
                .copy("golden"),
            ]
        ),
    ]
)
