// Written by edgeopt app; edgeopt app --update writes it anew.
import CryptoKit
import Foundation

/// The model can't be loaded or run.
public enum ModelError: Error, Equatable {
    /// The package lacks a file that belongs to it.
    case missing(file: String)
    /// The model file isn't the one that was exported.
    case damaged(sha256: String)
    /// An input has another number of values than the model takes.
    case wrongSize(input: String, found: Int, wanted: Int)
    /// The model gave something else than the bundle says.
    case wrongOutput(index: Int)
}

/// The model file: found and checked.
enum ModelFile {
    static let name = "model.pte"
    static let sha256 = "72736fb9aa66608fa8892c46ca9710f2150eab2276fb05f14a040c455fc98f85"

    /// The path of the model file, after hashing it.
    static func checked() throws -> String {
        let url = try resource(name)
        let digest = SHA256.hash(data: try Data(contentsOf: url, options: .mappedIfSafe))
        let found = digest.map { String(format: "%02x", $0) }.joined()
        guard found == sha256 else { throw ModelError.damaged(sha256: found) }
        return url.path
    }

    static func resource(_ file: String) throws -> URL {
        guard let url = Bundle.module.url(forResource: "Resources/" + file, withExtension: nil) else {
            throw ModelError.missing(file: file)
        }
        return url
    }
}
