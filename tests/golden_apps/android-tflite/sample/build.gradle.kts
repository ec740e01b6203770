plugins {
    alias(libs.plugins.android.application)
}

android {
    namespace = "com.acme.vision.sample"
    compileSdk = 36

    defaultConfig {
        applicationId = "com.acme.vision.sample"
        minSdk = 26
        targetSdk = 36
        versionCode = 1
        versionName = "1"
    }

    buildTypes {
        release {
            isMinifyEnabled = true
            proguardFiles(getDefaultProguardFile("proguard-android-optimize.txt"))
            // So that the release build, which is the one to measure, can be installed as it is.
            signingConfig = signingConfigs.getByName("debug")
        }
    }

    // Stored as it is, the model can be mapped instead of being unpacked into memory.
    androidResources {
        noCompress += "tflite"
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
}

dependencies {
    implementation(project(":model"))
}
