package android.app

import android.content.Context
import android.content.Intent
import android.os.Bundle
import android.widget.TextView

open class Activity : Context() {
    val intent: Intent = Intent()

    protected open fun onCreate(savedInstanceState: Bundle?) {}

    fun setContentView(view: TextView) {
        check(view.context === this)
    }

    fun runOnUiThread(action: Runnable) = action.run()

    fun create() = onCreate(null)
}
