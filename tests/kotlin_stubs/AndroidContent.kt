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
    private val extras = mutableMapOf<String, Any>()

    fun putExtra(name: String, value: Any): Intent = apply { extras[name] = value }

    fun getIntExtra(name: String, defaultValue: Int): Int = extras[name] as? Int ?: defaultValue

    fun getStringExtra(name: String): String? = extras[name] as? String
}
