package android.content

import android.content.res.AssetManager
import edgeopt.fake.FakeDevice
import java.io.File

open class Context {
    val assets: AssetManager = AssetManager()
    val noBackupFilesDir: File
        get() = FakeDevice.files
}

class Intent {
    fun getIntExtra(name: String, defaultValue: Int): Int = defaultValue
}
