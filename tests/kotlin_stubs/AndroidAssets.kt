package android.content.res

import edgeopt.fake.FakeDevice
import java.io.InputStream

class AssetManager internal constructor() {
    fun open(fileName: String): InputStream = FakeDevice.open(fileName)
}
